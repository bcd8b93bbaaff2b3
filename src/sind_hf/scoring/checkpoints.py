"""From the name of a checkpoint to a model that is ready to score."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.scoring.onnx_model import OnnxSindModel, ScoringModel, is_onnx

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_checkpoint(
    path: str, *, device: str | None = None, dtype: str = "float32"
) -> tuple[SindModel, SindImageProcessor]:
    """Load a SIND checkpoint and its image processor. No code of the checkpoint is run, and no pickle is read.

    Args:
        path: Folder or Hub repository.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` …; default: the first accelerator there is, else the CPU.
        dtype: Of the backbone: `"float32"`, `"bfloat16"` or `"float16"`. The head always computes in float32.

    Raises:
        ValueError: When there is no such checkpoint, it is none of SIND, or the device or dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: choose one of {', '.join(DTYPES)}.")
    check_folder(path)
    try:
        loaded: Any = SindModel.from_pretrained(
            path,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
        )
        model, found = loaded
        processor = SindImageProcessor.from_pretrained(path)
    except Exception as error:  # a config.json that comes from anywhere can break its reader in any way
        raise ValueError(f"{path}: cannot load this checkpoint ({' '.join(str(error).split())}).") from error
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


def check_folder(path: str) -> None:
    """Say in plain words what is wrong with a folder, before the loader says it in many.

    Args:
        path: A folder; the name of a Hub repository passes unseen.

    Raises:
        ValueError: When the folder is missing or holds no SIND checkpoint.
    """
    folder = Path(path)
    if is_onnx(path):
        raise ValueError(f"{path}: is an exported model, which can only score: name the checkpoint it was made from.")
    if not folder.exists():
        if path.startswith((".", os.sep, "~")) or path.count("/") != 1:
            raise ValueError(f"{path}: there is no such checkpoint folder.")
        return  # user/name: a Hub repository
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: holds no config.json, so it is no checkpoint.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}/config.json: cannot be read ({error}).") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "sind":
        raise ValueError(f"{path}: is a checkpoint of {kind!r}, not of SIND; start a SIND model from it by training.")
