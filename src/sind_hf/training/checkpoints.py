"""Checkpoints that are whole or not there: what a full disk or a kill leaves behind is never taken for one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sind_hf.whole_files import reason


def whole_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the checkpoints of a training run that were saved to their end, oldest first.

    The Trainer writes its state last; a checkpoint without it was cut short.

    Args:
        folder: Output folder of the run; need not exist.
    """
    found = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal() and (path / TRAINER_STATE_NAME).is_file():
            found[int(step)] = path
    return [found[step] for step in sorted(found)]


@contextmanager
def written_whole(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a folder to save into; its files replace those of `folder` when the block ends well, none when it does not.

    Args:
        folder: Where the files shall be; made if need be.

    Raises:
        ValueError: When the files cannot be written; what `folder` held before is as it was.
    """
    target = Path(folder)
    staged = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
        yield staged
        for file in sorted(path for path in staged.rglob("*") if path.is_file()):
            place = target / file.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{target}: cannot be saved ({_reason(error)}); what was there before is whole.") from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def removed_unless_whole(checkpoint: Path, before: Path | None) -> Iterator[None]:
    """Remove a checkpoint whose saving fails inside the `with` block.

    Args:
        checkpoint: The folder that is written.
        before: The last whole checkpoint, for the message.

    Raises:
        ValueError: When it cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        if not (checkpoint / TRAINER_STATE_NAME).is_file():
            shutil.rmtree(checkpoint, ignore_errors=True)
        kept = f"go on from {before} once there is room" if before else "there is none to go on from"
        raise ValueError(f"{checkpoint}: cannot be saved ({_reason(error)}); {kept}.") from error


def _reason(error: Exception) -> str:
    """What went wrong, without the path that the message names already."""
    if isinstance(error, OSError):
        return reason(error)
    if isinstance(error, ValueError) and isinstance(error.__cause__, (OSError, SafetensorError)):
        return _reason(error.__cause__)
    return " ".join(str(error).split())
