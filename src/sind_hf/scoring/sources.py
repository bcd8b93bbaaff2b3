"""Which pictures a command line means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

LIST_SUFFIX = ".txt"


def list_images(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the pictures that paths stand for, in a stable order.

    A folder stands for all pictures in it and below it (by their extension, sorted by name), a `.txt` file for the
    paths on its lines, relative to the working directory, anything else for itself, whether it exists or not:
    scoring names what cannot be read.

    Args:
        paths: Files, folders, lists and http(s) addresses.

    Raises:
        ValueError: When a folder holds no picture, or a list cannot be read.
    """
    for named in paths:
        path = Path(named)
        if str(named).startswith(("http://", "https://")):
            yield str(named)  # as it is: a Path would make one slash of two
        elif path.is_dir():
            yield from _in_folder(path)
        elif path.suffix.lower() == LIST_SUFFIX:
            yield from _in_list(path)
        else:
            yield str(path)


def _in_folder(folder: Path) -> Iterator[str]:
    known = picture_suffixes()
    found = False
    for directory, subfolders, files in os.walk(folder):
        subfolders.sort()  # os.walk descends in the order of this list
        for name in sorted(files):
            if Path(name).suffix.lower() in known:
                found = True
                yield os.path.join(directory, name)
    if not found:
        raise ValueError(f"{folder}: no pictures in this folder or below it (known by extensions such as .jpg, .png).")


def _in_list(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot read this list of pictures ({error.strerror}).") from None
    yield from (line.strip() for line in lines if line.strip())


def picture_suffixes() -> frozenset[str]:
    """Return the extensions of files that Pillow reads as pictures (and not as documents or film)."""
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(readable - {".pdf", ".ps", ".eps", ".mpg", ".mpeg", ".h5", ".hdf", ".fits", ".fit", ".iim"})
