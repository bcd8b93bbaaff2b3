"""One image of a scoring job: its name, and the source of its views."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile

import numpy as np
from PIL import Image

from sind_hf.data.prepared.folder import INDEX_FILE, PreparedFolder
from sind_hf.data.prepared.images import PreparedImage, PreparedImages
from sind_hf.files import reason
from sind_hf.image_processing_sind import (
    ImageError,
    ImageSource,
    SindImageProcessor,
    StripImage,
    ViewMode,
    load_image,
)

LARGEST_FILE = 512 * 2**20  # bytes of one encoded image that is read from the Hub


class PreparedRow(NamedTuple):
    """An image in a folder that `prepare` wrote.

    Attributes:
        folder: Path of the folder.
        written: Time when its index was last written, so that a folder which was prepared again is opened again.
        row: Number of the image among those that could be prepared.
    """

    folder: str
    written: int
    row: int


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
            ValueError: If it has more than `LARGEST_FILE` bytes.
        """
        if self.member is None:
            from huggingface_hub import HfFileSystem

            with HfFileSystem().open(self.path, "rb") as file:
                return _read_bounded(file, file.size)
        archive = _open_archive(self.path)
        with archive.open(self.member) as file:
            return _read_bounded(file, archive.getinfo(self.member).file_size)


class Unusable(NamedTuple):
    """The reason why an image cannot be used, when this is known before it is opened."""

    reason: str


@dataclass(frozen=True, slots=True)
class LocatedImage:
    """The name of an image and its place. Jobs exchange these between processes, never pixels.

    Attributes:
        name: Name in the results.
        source: Anything that `load_image` takes, a prepared image, or a place in a prepared folder or Hub dataset.
        position: Number of the image in its job, from 0.
        stamp: Result of `make_stamp` before the image was loaded; None if it is not needed.
    """

    name: str
    source: ImageSource | PreparedImage | PreparedRow | HubFile | Unusable
    position: int = 0
    stamp: str | None = None

    def make_stamp(self) -> str:
        """Return a digest that changes when the image does, without decoding it.

        It covers the absolute path, size and modification time of a file, the content of encoded bytes, or else the
        place.
        """
        source = self.source
        if isinstance(source, dict):
            identity = source.get("bytes") or b""
        elif isinstance(source, PreparedRow):
            identity = os.fsencode(f"{os.path.abspath(source.folder)} {source.written} {source.row}")
        else:
            identity = repr(source).encode()
            if isinstance(source, (str, Path)):
                with suppress(OSError, ValueError):  # an address, or a file that is missing
                    state = os.stat(source)
                    identity = os.fsencode(f"{os.path.abspath(source)} {state.st_size} {state.st_mtime_ns}")
        return hashlib.blake2b(identity, digest_size=12).hexdigest()

    def make_views(self, processor: SindImageProcessor, mode: ViewMode) -> tuple[np.ndarray, np.ndarray]:
        """Cut the views: uint8 (T, 3, s, s) each.

        Raises:
            ImageError: If the image cannot be read; the message names it.
        """
        if (prepared := self._prepared()) is not None:
            return prepared.make_views(mode)
        return processor.make_views(self._plain_source(), mode)

    def load(self) -> Image.Image:
        """Load the image for people to look at, as RGB; for prepared data, the larger of the stored ones.

        Raises:
            ImageError: If it cannot be read; the message names it.
        """
        if (prepared := self._prepared()) is not None:
            local = prepared.local_image
            return local.image if isinstance(local, StripImage) else Image.fromarray(local)
        return load_image(self._plain_source())

    def _prepared(self) -> PreparedImage | None:
        if isinstance(self.source, PreparedRow):
            return open_prepared(self.source.folder, self.source.written)[self.source.row]
        return self.source if isinstance(self.source, PreparedImage) else None

    def _plain_source(self) -> ImageSource:
        """Return the source in a form that `load_image` takes; bytes get the name of the image, for messages."""
        if isinstance(self.source, Unusable):
            raise ImageError(self.source.reason)
        if isinstance(self.source, HubFile):
            try:
                return {"bytes": self.source.read(), "path": self.name}
            except Exception as error:  # the Hub's client, HTTP and ZIP errors share no base class
                raise ImageError(f"{self.name}: cannot be read ({reason(error)})") from error
        assert not isinstance(self.source, (PreparedRow, PreparedImage))
        return self.source


@lru_cache(maxsize=4)
def _open_archive(path: str) -> ZipFile:
    from huggingface_hub import HfFileSystem

    return ZipFile(HfFileSystem().open(path, "rb"))


def _read_bounded(file: IO[bytes], size: int) -> bytes:
    if size > LARGEST_FILE:
        raise ValueError(f"has {size:,} bytes, more than the {LARGEST_FILE:,} that are read")
    return file.read(LARGEST_FILE)


def prepared_place(folder: str) -> tuple[str, int]:
    """Return what `open_prepared` and `PreparedRow` take: the folder, and when its index was written."""
    return folder, (Path(folder) / INDEX_FILE).stat().st_mtime_ns


@lru_cache(maxsize=4)
def open_prepared(folder: str, written: int) -> PreparedImages:
    """Open a prepared folder, once in every process; return all images that could be prepared, in order."""
    prepared = PreparedFolder(folder)
    failed = prepared.failures
    return PreparedImages(prepared.dataset(prepared.manifest.filter(lambda entry: entry.image not in failed)))
