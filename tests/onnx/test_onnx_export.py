"""`export_onnx`: one file, PyTorch's scores, and nothing half written."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sind_hf import SindConfig, SindImageProcessor, SindModel, score_images
from sind_hf.onnx import export
from sind_hf.onnx.export import export_onnx
from sind_hf.onnx.model import OnnxSindModel

Exported = Callable[..., SimpleNamespace]
ATOL = 1e-4  # on a scale of 0 to 100
BACKBONES = [
    "clip",
    "resnet",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "dinov2", "swin", "convnext")),
]


def scores(model: Any, images: Any, **options: Any) -> tuple[np.ndarray, np.ndarray | None]:
    rows = list(score_images(model, SindImageProcessor(), images, **options))
    maps = np.stack([row.quality_map for row in rows]) if options.get("quality_maps") else None
    return np.array([row.score for row in rows]), maps


@pytest.mark.parametrize("backbone", BACKBONES)
def test_scores_and_maps_are_pytorchs_in_any_batch(exported: Exported, image_files: list[str], backbone: str) -> None:
    case = exported(backbone)
    onnx_model = OnnxSindModel(case.path)
    for views in ("center", "nine"):
        expected, maps = scores(case.model, image_files, views=views, quality_maps=True)
        assert np.ptp(expected) > 100 * ATOL  # it reads the images
        for batch_size in (1, 5):
            found, found_maps = scores(onnx_model, image_files, views=views, batch_size=batch_size, quality_maps=True)
            np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)
            np.testing.assert_allclose(found_maps, maps, rtol=0, atol=ATOL)
    assert 0 <= case.result.difference <= ATOL and case.result.size == case.path.stat().st_size


@pytest.mark.parametrize("backbone", ["clip", "resnet", pytest.param("swin", marks=pytest.mark.slow)])
@pytest.mark.parametrize("views", ["center", "nine"])
def test_scores_of_real_photographs_are_pytorchs(shared: Path, exported: Exported, backbone: str, views: str) -> None:
    photographs = sorted(path for path in (shared / "data/photos").rglob("*") if path.suffix in (".jpg", ".png"))
    if not photographs:
        pytest.skip(f"needs photographs in {shared / 'data/photos'}")
    chosen = photographs[:: max(1, len(photographs) // 5)][:5]
    case = exported(backbone)
    expected, _ = scores(case.model, chosen, views=views)
    found, _ = scores(OnnxSindModel(case.path), chosen, views=views)
    assert np.ptp(expected) > 100 * ATOL
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("branch", ["none", pytest.param("class", marks=pytest.mark.slow)])
def test_variants_without_a_map(exported: Exported, image_files: list[str], branch: str) -> None:
    import onnxruntime

    case = exported("resnet", branch)
    session = onnxruntime.InferenceSession(case.path, providers=["CPUExecutionProvider"])
    inputs = ["pixel_values", "local_pixel_values"][: 1 if branch == "none" else 2]
    assert [each.name for each in session.get_inputs()] == inputs
    assert [each.name for each in session.get_outputs()] == ["quality"]
    expected, _ = scores(case.model, image_files, views="nine")
    found, _ = scores(OnnxSindModel(case.path), image_files, views="nine")
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


def test_the_file_is_one_that_any_runtime_can_use(exported: Exported) -> None:
    """Without this package: names, types, a free batch, pixels as they are, calibrated scores."""
    import onnxruntime

    case = exported("clip")
    session = onnxruntime.InferenceSession(case.path, providers=["CPUExecutionProvider"])
    for name, value in zip(("pixel_values", "local_pixel_values"), session.get_inputs(), strict=True):
        assert (value.name, value.type) == (name, "tensor(uint8)")
        assert isinstance(value.shape[0], str) and value.shape[1:] == [3, 224, 224]
    outputs = session.get_outputs()
    assert [(value.name, value.type) for value in outputs] == [
        ("quality", "tensor(float)"),
        ("quality_map", "tensor(float)"),
    ]
    assert outputs[1].shape[1:] == [7, 7]
    views = np.random.default_rng(0).integers(0, 256, (2, 7, 3, 224, 224), dtype=np.uint8)
    quality, quality_map = session.run(None, {"pixel_values": views[0], "local_pixel_values": views[1]})
    with torch.inference_mode():
        expected = case.model(*torch.from_numpy(views), output_quality_map=True)
    np.testing.assert_allclose(quality, expected.quality, rtol=0, atol=ATOL)
    np.testing.assert_allclose(quality_map, expected.quality_map, rtol=0, atol=ATOL)
    # One file, and no path of the machine it was made on in it.
    assert [path.name for path in case.folder.glob("*.onnx*")] == ["sind.onnx"]
    content = case.path.read_bytes()
    assert b"modeling_sind" not in content and b"site-packages" not in content


def test_a_backbone_that_cannot_be_traced_is_named_and_the_old_file_kept(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = exported("resnet")
    forward = case.model.vision_model.forward

    def looks_at_the_pixels(pixel_values: torch.Tensor, **options: Any) -> Any:
        return forward(pixel_values=pixel_values * 2 if pixel_values.sum().item() > 0 else pixel_values, **options)

    monkeypatch.setattr(case.model.vision_model, "forward", looks_at_the_pixels)
    path = tmp_path / "old.onnx"
    path.write_bytes(b"old")
    case.model.train()
    with pytest.raises(ValueError, match=r"The backbone 'resnet' cannot be exported to ONNX by torch \d") as error:
        export_onnx(case.model, SindImageProcessor(), path)
    assert "\n" not in str(error.value)
    assert case.model.training
    case.model.eval()
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("old.onnx", b"old")]


def test_a_file_with_other_scores_is_refused(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The comparison finds a change of one weight, and then nothing is written."""
    case = exported("resnet")
    other = SindModel.from_pretrained(case.folder)
    with torch.no_grad():
        other.quality_head.bias += 1e-3
    monkeypatch.setattr(export, "_write", lambda model, processor, path: path.write_bytes(case.path.read_bytes()))
    with pytest.raises(ValueError, match=r"exported quality differs from PyTorch's by 1\.0e-02") as error:
        export_onnx(other, SindImageProcessor(), tmp_path / "sind.onnx")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    export_onnx(case.model, SindImageProcessor(), tmp_path / "sind.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["sind.onnx"]


@pytest.fixture
def tiny_resnet(tiny_resnet_config: dict[str, Any]) -> SindModel:
    return SindModel(SindConfig(vision_config=tiny_resnet_config))


def refuse(model: SindModel, path: Path, message: str, processor: SindImageProcessor | None = None) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        export_onnx(model, processor or SindImageProcessor(), path)
    assert "\n" not in str(error.value)
    assert sorted(path.parent.rglob("*")) == before


def test_unusable_requests_are_one_line(
    tiny_resnet: SindModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra onnx")
    refuse(tiny_resnet, tmp_path / "sind.pb", "sind.pb: the file must end in .onnx")
    refuse(tiny_resnet, tmp_path / "gone" / "sind.onnx", "there is no folder .*gone")
    (tmp_path / "folder.onnx").mkdir()
    refuse(tiny_resnet, tmp_path / "folder.onnx", "folder.onnx: is a folder")
    refuse(tiny_resnet, tmp_path / "a.onnx", "makes views of 112 px, but .* 224 px", SindImageProcessor(size=112))
    refuse(tiny_resnet.bfloat16(), tmp_path / "a.onnx", "weights are torch.bfloat16: export it in float32")
    monkeypatch.setattr(export, "LARGEST", 10_000)
    refuse(tiny_resnet.float(), tmp_path / "a.onnx", r"0\.0 GB are too much for one ONNX file, which ends at 2 GB")


def test_missing_packages_name_the_extra(
    tiny_resnet: SindModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else real(name, *rest)
    )
    refuse(tiny_resnet, tmp_path / "a.onnx", r'The export needs onnxscript: pip install "sind-hf\[onnx\]"')
