"""Checkpoints that are complete or absent: what a full disk or a kill leaves behind is never taken for one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sind_hf.files import reason, sync_folder

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's name for it


def whole_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the complete checkpoints of a training run, oldest first.

    The Trainer writes its state last, so a checkpoint without it is incomplete. The folder need not exist.
    """
    found = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal() and (path / TRAINER_STATE_NAME).is_file():
            found[int(step)] = path
    return [found[step] for step in sorted(found)]


def require_undamaged(checkpoint: str | os.PathLike[str]) -> None:
    """Check the files of a checkpoint before a training resumes from it. Only tensors are unpickled.

    Raises:
        ValueError: If a file is cut off or overwritten, is a pickle of anything but tensors, or is not a regular
            file; the message names it.
    """
    folder = Path(checkpoint)
    if not (folder / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"{folder}: this checkpoint is incomplete ({TRAINER_STATE_NAME} is missing); resume from another one."
        )
    files = sorted(path for path in folder.iterdir() if not path.is_dir())
    for file in files:  # opening a named pipe would wait for a writer, and a device may never end
        if not file.is_file():
            raise ValueError(f"{file}: is not a regular file; remove it, or resume from another checkpoint.")
    for file in (path for path in files if path.suffix in _READERS):
        try:
            _READERS[file.suffix](file)
        except Exception as error:  # readers of arbitrary bytes raise errors of any class
            raise ValueError(f"{file}: damaged ({reason(error)}); resume from another checkpoint.") from error


def save_base_model(model: Any, folder: Path) -> None:
    """Save the model below the adapters of PEFT, with its config, into the folder of the adapter.

    PEFT saves only the adapter and the name of the base model. The name leads to another calibration, and to nothing
    if the base model was made for this training. With the base model in the folder, `from_pretrained` needs no name.

    Args:
        model: `PeftModel`, or a `SindModel` that has an adapter.
        folder: Folder in which PEFT has saved the adapter.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with_adapter = base._hf_peft_config_loaded
    base._hf_peft_config_loaded = False  # or transformers saves the adapter again
    try:
        base.save_pretrained(folder, state_dict=_weights_without_adapters(base))
    finally:
        base._hf_peft_config_loaded = with_adapter
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card, which would be taken for the user's own


def _weights_without_adapters(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model as they were named before PEFT wrapped some of its modules."""
    wrapped = [name for name, module in model.named_modules() if hasattr(module, "base_layer")]
    wrapped += [name for name, module in model.named_modules() if hasattr(module, "original_module")]
    weights = {}
    for name, value in model.state_dict().items():
        place = next((place for place in wrapped if name.startswith(f"{place}.")), None)
        if place is None:
            weights[name] = value
            continue
        kind, _, rest = name.removeprefix(f"{place}.").partition(".")
        if kind in ("base_layer", "original_module"):
            weights[f"{place}.{rest}"] = value
        elif kind == "modules_to_save":  # the trained copy of a module, which comes after the original
            weights[f"{place}.{rest.partition('.')[2]}"] = value
    return weights


def _read_json(file: Path) -> None:
    json.loads(file.read_text(encoding="utf-8"))


def _read_header(file: Path) -> None:
    with safe_open(file, framework="pt") as tensors:
        tensors.keys()


def _read_tensors(file: Path) -> None:
    with safe_globals():  # allows the few NumPy classes in the Trainer's random states
        torch.load(file, map_location="cpu", weights_only=True, mmap=True)


_READERS = {".json": _read_json, ".safetensors": _read_header, ".pt": _read_tensors, ".pth": _read_tensors}


@contextmanager
def sync_after_state(state: TrainerState, checkpoint: Path) -> Iterator[None]:
    """Sync a checkpoint that is saved inside a `with` block before the Trainer removes older ones.

    The Trainer writes its state last.
    """
    save = state.save_to_json

    def save_and_sync(json_path: str) -> None:
        save(json_path)
        sync_folder(checkpoint)

    state.save_to_json = save_and_sync  # type: ignore[method-assign]
    try:
        yield
    finally:
        del state.save_to_json


@contextmanager
def removed_unless_whole(checkpoint: Path) -> Iterator[None]:
    """Remove a checkpoint if saving it fails inside a `with` block.

    Raises:
        ValueError: If the checkpoint cannot be written; the message names the last complete one.
    """
    before = whole_checkpoints(checkpoint.parent)
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        if not (checkpoint / TRAINER_STATE_NAME).is_file():
            shutil.rmtree(checkpoint, ignore_errors=True)
        kept = f"make room, then resume from {before[-1]}" if before else "there is no checkpoint to resume from"
        cause = error
        if isinstance(error, ValueError) and isinstance(error.__cause__, (OSError, SafetensorError)):
            cause = error.__cause__  # its text has no path, which the message names already
        raise ValueError(f"{checkpoint}: cannot be saved ({reason(cause)}); {kept}.") from error
