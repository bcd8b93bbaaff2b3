"""From the name of a checkpoint to a model that is ready to score."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sind_hf.files import read_text, shown
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.onnx.model import OnnxSindModel, ScoringModel, is_onnx

# What a Hub repository may hold that scoring needs; nothing else of it is downloaded.
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
MOST_LABELS = 100_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_checkpoint(
    path: str, *, device: str | None = None, dtype: str = "float32"
) -> tuple[SindModel, SindImageProcessor]:
    """Load a SIND checkpoint and its image processor.

    A checkpoint is not trusted: no code in it is run, no pickle is read, and nothing that its configuration names is
    fetched from elsewhere.

    Args:
        path: Folder or Hub repository.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` …; default: the first accelerator there is, else the CPU.
        dtype: Type of the backbone's weights: `"float32"`, `"bfloat16"` or `"float16"`. The head always computes in
            float32.

    Raises:
        ValueError: When there is no such checkpoint, it is not one of SIND, or the device or dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: choose one of {', '.join(DTYPES)}.")
    check_folder(path)
    folder = path if Path(path).exists() else _download(path)
    try:
        loaded: Any = SindModel.from_pretrained(
            folder,
            local_files_only=True,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
        )
        model, found = loaded
        processor = SindImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a config.json that comes from anywhere can break its reader in any way
        raise ValueError(f"{path}: cannot load this checkpoint ({' '.join(str(error).split())}).") from error
    model.config._name_or_path = model.name_or_path = path
    # What the file lacks, or has in another shape, was filled with random numbers.
    unfit = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if unfit:
        raise ValueError(
            f"{path}: {len(unfit)} weights are missing from this checkpoint or do not fit its config.json "
            f"({', '.join(unfit[:3])}{' …' if unfit[3:] else ''}): copy or train it again."
        )
    try:
        torch.nn.Module.to(model, device or default_device())
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); leave it out to choose one.") from None
    return model.eval(), processor


def _download(path: str) -> str:
    """Download the checkpoint of a Hub repository, or take it from the cache, and return its folder.

    Raises:
        ValueError: When it cannot be had, or holds no SIND checkpoint.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(path, allow_patterns=list(HUB_FILES))
    except Exception as error:  # the Hub's client and HTTP errors share no base class
        raise ValueError(f"{path}: cannot load this checkpoint ({' '.join(str(error).split())}).") from error
    check_folder(folder, name=path)
    return folder


def load_scorer(
    path: str, *, device: str | None = None, dtype: str = "float32", fast_decode: bool = False
) -> tuple[ScoringModel, SindImageProcessor]:
    """Load whatever can score pictures: a checkpoint, or the file of an exported one.

    Args:
        path: Folder, Hub repository, or `.onnx` file.
        device: See `load_checkpoint`; of a file `"cpu"` (default) or `"cuda"`.
        dtype: See `load_checkpoint`; a file computes in float32.
        fast_decode: Whether its processor decodes large JPEG files at a fraction of their size, whatever the
            checkpoint says; see `SindImageProcessor`.

    Raises:
        ValueError: As `load_checkpoint` and `OnnxSindModel`.
    """
    model: ScoringModel
    if is_onnx(path):
        if dtype != "float32":
            raise ValueError(f"{path}: dtype is {dtype!r}, but an ONNX file computes in float32: leave it out.")
        model = OnnxSindModel(path, device=device)
        processor = model.image_processor()
    else:
        model, processor = load_checkpoint(path, device=device, dtype=dtype)
    processor.fast_decode = processor.fast_decode or fast_decode
    return model, processor


def default_device() -> str:
    """Return the accelerator that torch finds, of several processes on a machine each its own; else `"cpu"`."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    number = os.environ.get("LOCAL_RANK")
    return accelerator.type if number is None else f"{accelerator.type}:{number}"


def check_folder(path: str, name: str | None = None) -> None:
    """Say in plain words what is wrong with a folder, before the loader says it in many.

    Args:
        path: A folder; the name of a Hub repository passes unseen.
        name: How messages call it; default: by its path.

    Raises:
        ValueError: When the folder is missing, holds no SIND checkpoint, or names a backbone that is elsewhere.
    """
    folder, path = Path(path), name or path
    if is_onnx(path):
        raise ValueError(f"{path}: is an exported model, which can only score: name the checkpoint it was made from.")
    if not folder.exists():
        if path.startswith((".", os.sep, "~")) or path.count("/") != 1:
            raise ValueError(f"{path}: there is no such checkpoint folder.")
        return  # user/name: a Hub repository
    # Opening a named pipe waits for a writer, and reading a device may never end.
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ValueError(f"{path}/{file.name}: is not a regular file; remove it.")
    try:
        config = json.loads(read_text(folder / "config.json"))
    except FileNotFoundError:
        raise ValueError(f"{path}: holds no config.json, so it is no checkpoint.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}/config.json: cannot be read ({error}).") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "sind":
        raise ValueError(f"{path}: is a checkpoint of {kind!r}, not of SIND; start a SIND model from it by training.")
    for key, value in _settings_in(config):
        if key == "num_labels" and isinstance(value, (int, float)) and value > MOST_LABELS:  # a name is made for each
            raise ValueError(f"{path}/config.json: num_labels is {value:,}: at most {MOST_LABELS:,} are allowed.")
        if _is_elsewhere(key, value):
            raise ValueError(
                f"{path}/config.json: names weights or code that are elsewhere ({key} is {shown(value)}), which are "
                "never fetched; the configuration must describe its own backbone."
            )


def _is_elsewhere(key: str, value: Any) -> bool:
    """Tell whether transformers or timm would fetch what a setting names."""
    if key in ("backbone", "use_pretrained_backbone"):
        return bool(value)
    # A timm architecture may be `hf-hub:user/name`, and an implementation of attention a repository of kernels.
    named = key == "architecture" or key.endswith(("_implementation", "_implementation_internal"))
    return named and any(mark in str(value) for mark in ":/")


def _settings_in(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, those of nested configurations included."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
