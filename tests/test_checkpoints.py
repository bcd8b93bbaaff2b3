from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, pipeline
from transformers.utils import logging

from sind_hf import ImageError, SindImageProcessor, SindModel, SindPipeline, load_image
from sind_hf.checkpoints import default_device, load, load_checkpoint, score


def test_the_model_and_its_processor(tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str]) -> None:
    model, processor = load_checkpoint(str(tiny_checkpoint), device="cpu")
    assert not model.training and isinstance(processor, SindImageProcessor)
    expected = tiny_model.score(image_files, SindImageProcessor())
    assert model.score(image_files, processor) == pytest.approx(expected, rel=1e-5)
    assert load_checkpoint(str(tiny_checkpoint))[0].device.type == default_device()


def test_the_processors_settings_are_kept(tiny_checkpoint: Path) -> None:
    SindImageProcessor(resize_backend="pillow").save_pretrained(tiny_checkpoint)
    assert load_checkpoint(str(tiny_checkpoint), device="cpu")[1].resize_backend == "pillow"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(tiny_checkpoint: Path, dtype: str) -> None:
    model, _ = load_checkpoint(str(tiny_checkpoint), device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.vision_model.parameters()} == {getattr(torch, dtype)}


def refuse(path: object, *words: str, **options: str) -> None:
    with pytest.raises(ValueError) as error:
        load_checkpoint(str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    for word in (*words,) if options else (str(path), *words):
        assert word in message, message


def test_unusable_options(tiny_checkpoint: Path) -> None:
    refuse(tiny_checkpoint, "dtype is 'int8'", "bfloat16", dtype="int8")
    refuse(tiny_checkpoint, "device 'toaster' cannot be used", device="toaster")
    if not torch.cuda.is_available():
        refuse(tiny_checkpoint, "device 'cuda' cannot be used", device="cuda")


def test_folders_that_are_not_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(tmp_path / "gone", "there is no such checkpoint folder")
    refuse("./gone", "there is no such checkpoint folder")
    refuse("gone", "there is no such checkpoint folder")
    refuse(tmp_path, "holds no config.json")
    (tmp_path / "config.json").write_text("{ not json")
    refuse(tmp_path, "config.json", "cannot be read")
    for content, kind in (({"model_type": "clip"}, "'clip'"), ({}, "None"), ([], "None")):
        (tmp_path / "config.json").write_text(json.dumps(content))
        refuse(tmp_path, f"is a checkpoint of {kind}, not of SIND")


def test_loading_draws_no_progress_bar(tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()
    load_checkpoint(str(tiny_checkpoint))
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


def test_a_repository_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse("nobody/sind-of-nothing", "there is no such folder, and no such checkpoint could be loaded from the Hub")


def test_incomplete_and_damaged_checkpoints(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(tiny_checkpoint, tmp_path / name))

    folder = damaged("no processor")
    (folder / "preprocessor_config.json").unlink()
    refuse(folder, "cannot load")
    folder = damaged("no weights")
    (folder / "model.safetensors").unlink()
    refuse(folder, "cannot load", "model.safetensors")
    folder = damaged("truncated")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refuse(folder, "cannot load")
    folder = damaged("not safetensors")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refuse(folder, "cannot load")
    folder = damaged("headless")
    state = load_file(folder / "model.safetensors")
    del state["quality_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, "1 weights are missing", "quality_head.weight")
    folder = damaged("of other sizes")
    state["quality_head.weight"] = torch.zeros(1, 7)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, "do not fit its config.json", "quality_head.weight")
    folder = damaged("bad value")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "local_branch": "patches"}))
    refuse(folder, "cannot load", "local_branch is 'patches'")


# --- folders that are not trusted ------------------------------------------------------------------------------------


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_weights_in_a_pickle_are_refused_unread(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (tiny_checkpoint / "model.safetensors").unlink()
    torch.save({"quality_head.weight": Payload(trace)}, tiny_checkpoint / "pytorch_model.bin")
    refuse(tiny_checkpoint, "cannot load", "no file named model.safetensors")
    for loader in (SindModel, AutoModel):  # these read pickles, yet only tensors in them
        with pytest.raises(pickle.UnpicklingError):
            loader.from_pretrained(tiny_checkpoint)
    assert not trace.exists()
    with open(tiny_checkpoint / "pytorch_model.bin", "rb") as file, suppress(Exception):
        torch.load(file, weights_only=False)
    assert trace.exists()  # the payload is one


def test_code_in_a_folder_is_not_run(tiny_checkpoint: Path, tmp_path: Path, image_files: list[str]) -> None:
    """Not even where every place that can name code names it: only `trust_remote_code=True` would."""
    trace = tmp_path / "ran"
    expected = load_checkpoint(str(tiny_checkpoint))[0].score(image_files[:1], SindImageProcessor())
    (tiny_checkpoint / "payload.py").write_text(f"import os\nos.mkdir({str(trace)!r})\nclass Anything: ...\n")
    named = {name: "payload.Anything" for name in ("AutoConfig", "AutoModel", "AutoImageProcessor")}
    for file in ("config.json", "preprocessor_config.json"):
        content = json.loads((tiny_checkpoint / file).read_text()) | {"auto_map": named, "trust_remote_code": True}
        if "vision_config" in content:
            content["vision_config"] |= {"auto_map": named, "trust_remote_code": True}
            content["custom_pipelines"] = {"image-quality-assessment": {"impl": "payload.Anything", "pt": "AutoModel"}}
        (tiny_checkpoint / file).write_text(json.dumps(content))
    model, processor = load_checkpoint(str(tiny_checkpoint))
    assert model.score(image_files[:1], processor) == expected
    assert isinstance(AutoModel.from_pretrained(tiny_checkpoint), SindModel)
    assert isinstance(AutoImageProcessor.from_pretrained(tiny_checkpoint), SindImageProcessor)
    pipe = pipeline("image-quality-assessment", model=str(tiny_checkpoint), image_processor=str(tiny_checkpoint))
    assert isinstance(pipe, SindPipeline)
    assert not trace.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"vision_config": [1]},
        {"vision_config": "clip"},
        {"vision_config": {"model_type": "no such model"}},
        {"vision_config": {"model_type": "clip_vision_model", "hidden_size": -3}},
        {"vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": "two"}},
        {"view_size": 1e300},
        {"score_range": "0 to 100"},
        {"auto_map": 7},
        {"architectures": 7},
        {"dtype": "float7"},
    ],
)
def test_configurations_of_any_content_are_one_line_or_harmless(
    tiny_checkpoint: Path, change: dict[str, object]
) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (tiny_checkpoint / "config.json").write_text(json.dumps(config | change))
    try:
        model, _ = load_checkpoint(str(tiny_checkpoint))
    except ValueError as error:
        assert str(error).startswith(f"{tiny_checkpoint}: ") and "\n" not in str(error)
    else:
        assert isinstance(model, SindModel) and set(change) <= {"auto_map", "architectures", "dtype"}


@pytest.mark.parametrize(
    "change",
    [
        {"vision_config": {"model_type": "dpt", "backbone": "evil/x"}},
        {"vision_config": {"model_type": "upernet", "backbone": "evil/x", "use_pretrained_backbone": True}},
        {"vision_config": {"model_type": "timm_wrapper", "architecture": "hf-hub:evil/x"}},
        {"vision_config": {"model_type": "detr", "backbone_config": {"backbone": "evil/x"}}},
        {"attn_implementation": "evil/x"},
        {"vision_config": {"model_type": "clip_vision_model", "_attn_implementation": "evil/x"}},
    ],
)
def test_nothing_that_a_configuration_names_is_fetched(
    tiny_checkpoint: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def refuse(host: str, *_: object, **__: object) -> None:
        tried.append(host)
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load_checkpoint(str(tiny_checkpoint))
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (tiny_checkpoint / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match="config.json: names weights or code that are elsewhere .*evil/x"):
        load_checkpoint(str(tiny_checkpoint))
    assert tried == []


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_checkpoint_of_pipes_is_refused_unopened(tiny_checkpoint: Path, name: str) -> None:
    (tiny_checkpoint / name).unlink()
    os.mkfifo(tiny_checkpoint / name)
    refuse(tiny_checkpoint, f"{name}: is not a regular file")
    (tiny_checkpoint / name).unlink()
    (tiny_checkpoint / name).symlink_to("/dev/zero")
    refuse(tiny_checkpoint, f"{name}: is not a regular file")


def test_a_configuration_that_is_nested_too_deeply(tiny_checkpoint: Path) -> None:
    (tiny_checkpoint / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    refuse(tiny_checkpoint, "config.json", "cannot be read")


@pytest.mark.parametrize("part", ["config", "vision_config"])
def test_labels_that_would_fill_the_memory_are_refused(tiny_checkpoint: Path, part: str) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (config if part == "config" else config[part])["num_labels"] = 1_000_000
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    refuse(tiny_checkpoint, "config.json", "num_labels is 1,000,000: at most 100,000")


def test_a_hub_checkpoint_is_checked_before_it_is_built(
    tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def snapshot(repo_id: str, allow_patterns: list[str]) -> str:
        asked.append(repo_id)
        return str(tiny_checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model, processor = load_checkpoint("user/model", device="cpu")
    assert model.score(image_files[:1], processor) == tiny_model.score(image_files[:1], SindImageProcessor())
    assert model.name_or_path == "user/model"
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["vision_config"] = {"model_type": "dpt", "backbone": "evil/x"}
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="^user/model/config.json: names weights or code"):
        load_checkpoint("user/model")
    assert asked == ["user/model"] * 2


def test_weights_that_the_file_lacks_take_no_memory(tiny_checkpoint: Path) -> None:
    """A configuration of 100 million parameters beside a file of some thousand is refused before any is made."""
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["vision_config"] |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    refuse(tiny_checkpoint, "config.json declares 1", "parameters, but at most 10,0")


def test_a_model_remembers_the_image_processor_of_its_checkpoint(
    tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str]
) -> None:
    SindImageProcessor(views="nine").save_pretrained(tiny_checkpoint)
    expected = tiny_model.score(image_files[:2], SindImageProcessor(), views="nine")
    for model in (
        SindModel.from_pretrained(tiny_checkpoint),
        SindModel.from_pretrained(str(tiny_checkpoint), output_loading_info=True)[0],
        AutoModel.from_pretrained(tiny_checkpoint),
        load(str(tiny_checkpoint), device="cpu"),
    ):
        assert model.score(image_files[:2]) == expected
        assert copy.deepcopy(model).score(image_files[0]) == pytest.approx(expected[:1])


def test_the_processor_comes_from_the_same_revision(
    tiny_checkpoint: Path, image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SindModel.from_pretrained(tiny_checkpoint, revision="v1", local_files_only=True, token="secret")
    asked: list[Any] = []

    def from_pretrained(*place: object, **options: object) -> SindImageProcessor:
        asked.append((place, options))
        return SindImageProcessor()

    monkeypatch.setattr(SindImageProcessor, "from_pretrained", from_pretrained)
    model.score(image_files[0])
    model.score(image_files[0])
    assert asked == [((tiny_checkpoint,), {"revision": "v1", "local_files_only": True})]
    assert b"secret" not in pickle.dumps(model)


def test_without_an_image_processor_the_message_asks_for_one(tiny_model: SindModel, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="was not loaded from a checkpoint, so it has no image processor: pass one"):
        tiny_model.score("photo.jpg")
    (tiny_checkpoint / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="cannot load the image processor of this checkpoint"):
        SindModel.from_pretrained(tiny_checkpoint).score("photo.jpg")


def test_quality_maps_are_those_of_the_model(tiny_model: SindModel, image_files: list[str]) -> None:
    processor = SindImageProcessor()
    tiny_model.train()
    maps = tiny_model.quality_map(image_files[:3], processor, batch_size=2)
    assert tiny_model.training
    inputs = processor(image_files[:3], return_tensors="pt")
    with torch.inference_mode():
        expected = tiny_model.eval()(**inputs, output_quality_map=True).quality_map
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert tiny_model.quality_map(image_files[0], processor).shape == (1, 7, 7)
    assert tiny_model.quality_map([], processor).shape == (0, 7, 7)


def test_one_image_gets_a_float_and_several_a_list(
    tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str]
) -> None:
    expected = tiny_model.score(image_files, SindImageProcessor())
    name = str(tiny_checkpoint)
    assert score(image_files[1], name) == pytest.approx(expected[1], abs=1e-4)
    image = load_image(image_files[1])
    assert score(image, name) == pytest.approx(expected[1], abs=1e-4)
    assert score(np.asarray(image), name) == pytest.approx(expected[1], abs=1e-4)
    for several in (image_files, tuple(image_files), (file for file in image_files), np.array(image_files)):
        assert score(several, name) == pytest.approx(expected, abs=1e-4)
    assert score(np.asarray(image)[None], name) == pytest.approx(expected[1:2], abs=1e-4)
    assert score([], name) == []
    with pytest.raises(ImageError, match="Cannot read an image from NoneType"):
        score(None, name)
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        score(image_files, name, batch_size=0)


def test_addresses_are_downloaded_on_request_only(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(address: str, private_addresses: bool) -> bytes:
        asked.append(address)
        raise ImageError("no network")

    monkeypatch.setattr("sind_hf.image_processing_sind._download", download)
    address = "HTTPS://example.org/a.jpg"
    for images in (address, [address]):
        with pytest.raises(ImageError, match="a.jpg: is a web address; pass fetch_urls=True to download it"):
            score(images, str(tiny_checkpoint))
    assert asked == []
    with pytest.raises(ImageError, match="no network"):
        score(address, str(tiny_checkpoint), fetch_urls=True)
    assert asked == [address]
