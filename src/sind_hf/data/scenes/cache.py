"""A file of similarities, from which an interrupted labeling continues."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sind_hf.files import reason
from sind_hf.image_processing_sind import open_regular_file

_VERSION = 1


class SimilarityCache(dict[str, list[float]]):
    """Similarities by image in a JSON Lines file: the settings on the first line, then one image per line.

    The file holds similarities rather than scenes, so that other candidates need no new run of the model. Every batch
    is on the disk when `add` returns. A line that a kill cut off is removed when the file is opened again.

    Args:
        path: Path of the file; None for memory only.
        settings: Settings that the similarities depend on.

    Raises:
        ValueError: If the file has other settings, is not such a cache, is damaged, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = None if path is None else Path(path)
        self.settings = {"similarity_cache": _VERSION, **settings}
        self._file: BinaryIO | None = None

    def __enter__(self) -> SimilarityCache:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    open_regular_file(self.path).close()  # refuses pipes and devices
                self._file = self.path.open("a+b")
                self._read(self._file)
            except OSError as error:
                raise ValueError(f"{self.path}: cannot use this cache ({reason(error)}).") from None
            except ValueError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, images: Sequence[str], similarities: npt.NDArray[np.floating]) -> None:
        """Add the similarities of a batch: one row of (B, number of scenes) for each image."""
        rows = [[float(str(value)) for value in row] for row in similarities]  # 25.31, not 25.309999465942383
        self.update(zip(images, rows, strict=True))
        self._append({"image": image, "similarities": row} for image, row in zip(images, rows, strict=True))

    def _append(self, documents: Any) -> None:
        if self._file is None:
            return
        text = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be written ({reason(error)}); make room.") from None

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        content = file.read()
        first, *lines = content.split(b"\n")
        header = json.dumps(self.settings, ensure_ascii=False).encode()
        if not lines and header.startswith(first):  # a new file, or one that was cut off in its first line
            file.truncate(0)
            self._append([self.settings])
            return
        found = _json(first)
        if not isinstance(found, dict) or found.get("similarity_cache") != _VERSION or not lines:
            raise ValueError(f"{self.path}: is not a cache of scene similarities; name another file.")
        for key, wanted in self.settings.items():
            if found.get(key) != wanted:
                raise ValueError(
                    f"{self.path}: was made with {key} {found.get(key)!r}, not {wanted!r}; delete it, or name another."
                )
        scenes = len(self.settings.get("scenes", ()))
        for number, line in enumerate(lines[:-1], start=2):
            row = _json(line)
            if not isinstance(row, dict) or len(row.get("similarities", ())) != scenes or "image" not in row:
                raise ValueError(f"{self.path}, line {number}: damaged; delete this line, or the file.")
            self[row["image"]] = row["similarities"]
        file.truncate(len(content) - len(lines[-1]))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
