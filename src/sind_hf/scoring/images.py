"""One picture on its way to a score: its name, and where its views come from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile

import numpy as np
from PIL import Image

from sind_hf.data.prepared.folder import INDEX_FILE, PreparedFolder
from sind_hf.data.prepared.images import PreparedPicture, PreparedPictures
from sind_hf.image_processing_sind import (
    ImageError,
    ImageSource,
    SindImageProcessor,
    StripPicture,
    ViewMode,
    load_image,
)

LARGEST_FILE = 512 * 2**20  # bytes of one encoded image that is read from the Hub


class PreparedRow(NamedTuple):
    """A picture of a folder that `prepare` wrote.

    Attributes:
        folder: Its path.
        written: When its index was last written, so that a folder which was prepared again is opened again.
        row: Number of the picture among those that could be prepared.
    """

    folder: str
    written: int
    row: int

    def open(self) -> PreparedPicture:
        """Find the picture in the memory map; nothing is read yet."""
        return prepared_pictures(self.folder, self.written)[self.row]


class HubFile(NamedTuple):
    """A file of a Hub dataset, read where it is decoded. Nothing but the Hub can be reached through it.

    Attributes:
        path: `datasets/USER/NAME@REVISION/FILE`, as the Hub's own file system names it.
        member: Name of a file in it, when it is a ZIP archive.
    """

    path: str
    member: str | None = None

    def read(self) -> bytes:
        """Return the content.

        Raises:
            OSError: When it cannot be read.
            ValueError: When it has more than `LARGEST_FILE` bytes.
        """
        if self.member is None:
            from huggingface_hub import HfFileSystem

            with HfFileSystem().open(self.path, "rb") as file:
                return _read_bounded(file, file.size)
        archive = _open_archive(self.path)
        with archive.open(self.member) as file:
            return _read_bounded(file, archive.getinfo(self.member).file_size)


class Unusable(NamedTuple):
    """The place of a picture that is known to be unusable before it is looked at, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What goes from process to process: a path, encoded bytes, or the place where they are, never pixels.

    Attributes:
        name: As it is called in the results.
        source: Where it is.
        position: Number of the picture in its job, from 0.
        stamp: What `make_stamp` returned before the image was loaded; None where nobody asked for it.
    """

    name: str
    source: ImageSource | PreparedRow | HubFile | Unusable
    position: int = 0
    stamp: str | None = None

    def make_stamp(self) -> str:
        """Digest what tells whether this is still the same image, without decoding it.

        It is the absolute path, size and modification time of a file, the content of encoded bytes, else the place.
        """
        digest = hashlib.blake2b(digest_size=12)
        source = self.source
        if isinstance(source, dict):
            digest.update(source.get("bytes") or b"")
        elif isinstance(source, PreparedRow):
            digest.update(os.fsencode(f"{os.path.abspath(source.folder)} {source.written} {source.row}"))
        elif isinstance(source, (str, Path)):
            try:
                state = os.stat(source)
                digest.update(os.fsencode(f"{os.path.abspath(source)} {state.st_size} {state.st_mtime_ns}"))
            except (OSError, ValueError):  # an address, or a file that is missing
                digest.update(repr(source).encode())
        else:
            digest.update(repr(source).encode())
        return digest.hexdigest()

    def make_views(self, processor: SindImageProcessor, mode: ViewMode) -> tuple[np.ndarray, np.ndarray]:
        """Cut the views: uint8 (T, 3, s, s) each.

        Raises:
            ImageError: When the picture cannot be read; the message names it.
        """
        if isinstance(self.source, PreparedRow):
            return self.source.open().make_views(mode)
        return processor.make_views(self._plain_source(), mode)

    def load(self) -> Image.Image:
        """Load the picture to be looked at: RGB; of prepared data the larger one that is stored.

        Raises:
            ImageError: When it cannot be read; the message names it.
        """
        if isinstance(self.source, PreparedRow):
            local = self.source.open().local_picture
            return local.image if isinstance(local, StripPicture) else Image.fromarray(local)
        return load_image(self._plain_source())

    def _plain_source(self) -> ImageSource:
        """The source as `load_image` takes it; bytes go under the name of the picture, for its messages."""
        if isinstance(self.source, Unusable):
            raise ImageError(self.source.reason)
        if isinstance(self.source, HubFile):
            try:
                return {"bytes": self.source.read(), "path": self.name}
            except Exception as error:  # the Hub's client, HTTP and ZIP errors share no base class
                raise ImageError(f"{self.name}: cannot be read ({' '.join(str(error).split())[:200]})") from error
        assert not isinstance(self.source, PreparedRow)
        return self.source


@lru_cache(maxsize=4)
def _open_archive(path: str) -> ZipFile:
    """Open a ZIP archive of a Hub dataset, once in every process."""
    from huggingface_hub import HfFileSystem

    return ZipFile(HfFileSystem().open(path, "rb"))


def _read_bounded(file: IO[bytes], size: int) -> bytes:
    if size > LARGEST_FILE:
        raise ValueError(f"has {size:,} bytes, more than the {LARGEST_FILE:,} that are read")
    return file.read(LARGEST_FILE)


def prepared_place(folder: str) -> tuple[str, int]:
    """Return what `prepared_pictures` and `PreparedRow` take: the folder, and when its index was written."""
    return folder, (Path(folder) / INDEX_FILE).stat().st_mtime_ns


@lru_cache(maxsize=4)
def prepared_pictures(folder: str, written: int) -> PreparedPictures:
    """Open a prepared folder, once in every process: all its pictures that could be prepared, in their order."""
    prepared = PreparedFolder(folder)
    failed = prepared.failures
    return PreparedPictures(prepared.dataset(prepared.manifest.filter(lambda entry: entry.image not in failed)))
