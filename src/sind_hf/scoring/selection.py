"""The images of a job that are good enough, and copies of their files."""

from __future__ import annotations

import filecmp
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sind_hf.files import reason
from sind_hf.image_processing_sind import printable
from sind_hf.scoring.scorer import ScoredImage


@dataclass(frozen=True)
class Selection:
    """Which results are kept, and in which order; without a setting all of them in the order of the input.

    Attributes:
        min_score: Lowest score to keep; images without a score are dropped.
        top: Number of results to keep, best first; images without a score are dropped.
        sort: Whether the best come first, and those without a score last.
    """

    min_score: float | None = None
    top: int | None = None
    sort: bool = False

    @property
    def drops(self) -> bool:
        """Whether some results may be dropped."""
        return self.min_score is not None or self.top is not None

    def choose(self, rows: Iterable[ScoredImage]) -> list[ScoredImage]:
        """Return the results that are kept, in order; equal scores stay in the order of the input."""
        chosen = list(rows)
        if self.drops:
            lowest = -math.inf if self.min_score is None else self.min_score
            chosen = [row for row in chosen if row.score is not None and row.score >= lowest]
        if self.sort or self.top is not None:
            chosen.sort(key=lambda row: (row.score is None, -(row.score or 0)))
        return chosen[: self.top]


def common_folder(images: Iterable[str]) -> str:
    """Return the deepest folder that all images are below, as an absolute path."""
    folders = {os.path.dirname(os.path.abspath(image)) for image in images}
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on several drives of Windows
        return os.curdir


def place_files(images: Sequence[str], folder: Path, base: str, *, move: bool = False) -> Iterator[str | None]:
    """Copy or move image files to a folder, created if needed; an existing file is never overwritten.

    A file keeps its path below `base` (see `common_folder`), so that `a/1.jpg` and `b/1.jpg` stay two. Files that are
    in `folder` already, or copied there before, are left as they are.

    Yields:
        None for each image in the folder, or the reason why it is not there.
    """
    inside = os.path.join(os.path.realpath(folder), "")
    for image in images:
        if os.path.realpath(image).startswith(inside):
            yield None
            continue
        path = os.path.relpath(os.path.abspath(image), base)
        target = folder / (os.path.basename(image) if path.startswith(os.pardir) else path)
        try:
            _place(image, target, move=move)
        except FileExistsError:
            yield f"{printable(image)}: {printable(target)} is another file, which is not overwritten"
        except OSError as error:
            yield f"{printable(image)}: cannot be put at {printable(target)} ({reason(error)})"
        else:
            yield None


def _place(source: str, target: Path, *, move: bool) -> None:
    """Copy or move one file. If the process is killed, the file is complete in one of the two places, or in both."""
    if not os.path.isfile(source):
        raise OSError("it is not a file on this disk")
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        if not (os.path.isfile(target) and filecmp.cmp(source, target, shallow=False)):
            raise FileExistsError(target)
    elif not (move and _link(source, target)):
        _copy(source, target)
    if move:
        os.unlink(source)


def _link(source: str | Path, target: Path) -> bool:
    """Give a file a second name, if the file system has hard links; raise `FileExistsError` if the name is taken."""
    if os.path.islink(source):  # a relative link would lead elsewhere from another folder
        return False
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or a file system without hard links
        return False
    return True


def _copy(source: str, target: Path) -> None:
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        shutil.copy2(source, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if not _link(temporary, target):
            if os.path.lexists(target):
                raise FileExistsError(target)
            os.rename(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()
