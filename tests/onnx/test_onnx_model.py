"""`OnnxSindModel`: what it reads and refuses. test_onnx_export.py compares its scores with those of PyTorch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sind_hf import SindModel, score_images
from sind_hf.checkpoints import load_checkpoint, load_scorer
from sind_hf.onnx.model import METADATA_KEY, OnnxConfig, OnnxSindModel

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra onnx")
Exported = Callable[..., SimpleNamespace]


def save_identity(path: Path, metadata: dict[str, str]) -> Path:
    """An ONNX model of nobody's, with metadata."""
    onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra onnx")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def refuse(path: Path | str, *words: str, **options: Any) -> None:
    with pytest.raises(ValueError) as error:
        load_scorer(str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_what_the_file_says_of_itself(exported: Exported) -> None:
    case = exported("clip")
    config = OnnxSindModel(case.path).config
    assert (config.backbone, config.local_branch, config.view_size) == ("clip_vision_model", "patch", 224)
    assert (config.views, config.resize_backend, config.fast_decode) == ("center", "torch", False)
    assert (config.score_scale, config.score_shift, config.score_range) == (10.0, 50.0, [0, 100])
    assert config.higher_is_better is True
    assert config.image_mean == pytest.approx(case.model.config.image_mean)
    assert config.image_std == pytest.approx(case.model.config.image_std)
    assert config.versions["torch"] == version("torch")  # without the build that `torch.__version__` adds
    assert set(config.versions) == {"sind_hf", "torch", "transformers", "onnx", "onnxscript"}
    assert OnnxConfig.from_json(config.to_json()) == config
    older = json.loads(config.to_json())
    assert older.pop("color_management") is True
    assert OnnxConfig.from_json(json.dumps(older)) == config


def test_it_scores_without_a_torch_model(
    exported: Exported, image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = exported("resnet")
    expected = case.model.score(image_files, load_checkpoint(str(case.folder), device="cpu")[1])

    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("a torch model was built")

    monkeypatch.setattr(SindModel, "__init__", build)
    model, processor = load_scorer(str(case.path))
    assert isinstance(model, OnnxSindModel)
    found = [row.score for row in score_images(model, processor, image_files, batch_size=2)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_processor_is_the_one_of_the_file(exported: Exported, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra onnx")
    file = onnx.load(exported("resnet").path)
    settings = json.loads({each.key: each.value for each in file.metadata_props}[METADATA_KEY])
    settings |= {"view_size": 112, "resize_backend": "pillow", "views": "nine"}
    settings |= {"fast_decode": True, "color_management": False, "image_mean": [0.1, 0.2, 0.3]}
    onnx.helper.set_model_props(file, {METADATA_KEY: json.dumps(settings)})
    onnx.save(file, tmp_path / "other.onnx")
    processor = OnnxSindModel(tmp_path / "other.onnx").image_processor
    assert processor.size == {"height": 112, "width": 112} and list(processor.image_mean) == [0.1, 0.2, 0.3]
    assert (processor.resize_backend, processor.views, processor.fast_decode) == ("pillow", "nine", True)
    assert processor.color_management is False


def test_pairs_of_views_are_averaged_image_by_image(exported: Exported) -> None:
    model = OnnxSindModel(exported("clip").path)
    views = torch.randint(
        0, 256, (2, 3, 4, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    together = model(*views, output_quality_map=True)
    assert together.quality.shape == (3,) and together.quality_map.shape == (3, 7, 7)
    for image in range(3):
        alone = model(*views[:, image], output_quality_map=True)
        torch.testing.assert_close(together.quality[image], alone.quality.mean(), rtol=0, atol=1e-4)
        torch.testing.assert_close(together.quality_map[image], alone.quality_map.mean(0), rtol=0, atol=1e-4)
    assert model(*views).quality_map is None


def test_files_that_are_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(tmp_path / "gone.onnx", "gone.onnx: there is no such file")
    for name, content in (("text.onnx", b"no model at all"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name, f"{tmp_path / name}: onnxruntime cannot load this file")
    refuse(save_identity(tmp_path / "a.onnx", {}), "a.onnx: is an ONNX model, but not one that `sind-hf export` wrote")
    for text, reason in (("{", "cannot be read"), ('{"format": 1}', "cannot be read"), ('{"format": 2}', "format")):
        refuse(save_identity(tmp_path / "b.onnx", {METADATA_KEY: text}), "b.onnx: its metadata", reason, "export")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else real(name, *rest)
    )
    refuse(tmp_path / "a.onnx", 'a.onnx: ONNX files need onnxruntime: pip install "sind-hf[onnx]"')


def test_a_truncated_file(exported: Exported, tmp_path: Path) -> None:
    content = exported("resnet").path.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    refuse(tmp_path / "half.onnx", "half.onnx: onnxruntime cannot load this file")


def test_options_that_a_file_has_not(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported("resnet").path
    refuse(path, "dtype is 'bfloat16', but an ONNX file computes in float32", dtype="bfloat16")
    refuse(path, "device 'toaster' cannot be used with an ONNX file: choose cpu or cuda", device="toaster")
    refuse(path, "device 'cuda:x' cannot be used", device="cuda:x")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    refuse(path, "device 'cuda' cannot be used: this onnxruntime has no CUDA; install onnxruntime-gpu", device="cuda")
    with pytest.raises(ValueError, match="is an exported model, which can only score"):
        load_checkpoint(str(path))


def test_cuda_is_asked_for_by_its_number(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """What onnxruntime is told; where the device does not start, it would go on without a word."""
    path, asked = exported("resnet").path, []
    real = onnxruntime.InferenceSession

    def session(file: Any, options: Any, providers: Any) -> Any:
        asked.append(providers)
        return real(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    refuse(path, "device 'cuda:1' cannot be used: onnxruntime could not start it", device="cuda:1")
    assert asked == [[("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})]]


@pytest.mark.gpu
def test_scores_on_cuda_are_those_of_the_cpu(exported: Exported, image_files: list[str]) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and onnxruntime-gpu")
    found = []
    for device in ("cpu", "cuda"):
        model, processor = load_scorer(str(exported("clip").path), device=device)
        found.append([row.score for row in score_images(model, processor, image_files)])
    assert found[1] == pytest.approx(found[0], abs=1e-3)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((torch.zeros(1, 3, 224, 224), torch.zeros(1, 3, 224, 224)), "is torch.float32: .* give it uint8 views"),
        ((torch.zeros(1, 3, 224, 224, dtype=torch.uint8), None), "local_pixel_values must have the shape"),
        ((torch.zeros(1, 3, 112, 112, dtype=torch.uint8),) * 2, r"shape \(1, 3, 112, 112\): expected \(B, 3, 224"),
        ((torch.zeros(0, 3, 224, 224, dtype=torch.uint8),) * 2, "expected"),
        ((torch.zeros(3, 224, 224, dtype=torch.uint8),) * 2, "expected"),
    ],
)
def test_wrong_views_are_one_line(exported: Exported, views: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        OnnxSindModel(exported("clip").path)(*views)
    assert "\n" not in str(error.value)


def test_a_variant_without_local_views(exported: Exported, image_files: list[str]) -> None:
    model, processor = load_scorer(str(exported("resnet", "none").path))
    views = torch.from_numpy(np.stack([processor.make_views(file)[0][0] for file in image_files]))
    assert model(views).quality.shape == (5,)  # no local view is asked for
    with pytest.raises(ValueError, match="No quality map: local_branch='none'"):
        model(views, output_quality_map=True)
    with pytest.raises(ValueError, match="No quality map: local_branch='none'"):
        list(score_images(model, processor, image_files, quality_maps=True))
