"""Scores on disk: rows are kept as they come, and the finished file appears whole.

While a job runs, its rows go to `OUTPUT.part`, one JSON object a line, flushed batch by batch. When it ends they are
written in the wanted format to a temporary file, which replaces OUTPUT in one step. After an interruption `resume`
reads the part and leaves out what is done.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sind_hf.scoring.scorer import ScoredImage
from sind_hf.whole_files import reason, written_file

FORMATS = (".csv", ".jsonl", ".parquet")
COLUMNS = ("image", "score", "error")


class ScoreFile:
    """Writes scores to a CSV, JSON Lines or Parquet file with the columns image, score, error.

    Use it as a context manager: leaving it normally finishes the file, leaving it by an exception keeps the part.

    Args:
        path: The file to make; its extension says the format.
        images: Names of all pictures of the job, each once; the finished file has their order.
        settings: What the scores depend on (model, views); a part made with others is not continued.
        resume: Continue the part of an interrupted job, where there is one. Pictures that failed are tried again.

    Attributes:
        remaining: The pictures that have no score yet, in order.

    Raises:
        ValueError: Unknown extension, missing folder, a part of other settings, or a part that is not to be resumed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        images: Sequence[str],
        settings: dict[str, Any],
        *,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.images = images
        self.settings = settings
        if self.path.suffix.lower() not in FORMATS:
            raise ValueError(f"{self.path}: unknown format; use one of {', '.join(FORMATS)}.")
        if not self.path.parent.is_dir():
            raise ValueError(f"{self.path}: there is no folder {self.path.parent}.")
        done = self._read_done() if self.part.exists() else set()
        if done and not resume:
            raise ValueError(
                f"{self.part}: holds {len(done)} scores of an interrupted job: resume it, or delete this file."
            )
        self._fresh = not done
        self.remaining = [image for image in images if image not in done]

    def _read_done(self) -> set[str]:
        """Return the pictures that have a score, and cut off what the interruption left damaged."""
        done: set[str] = set()
        keep = 0
        with open(self.part, "rb") as file:
            for number, line in enumerate(file):
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                if number == 0 and row != self.settings:
                    raise ValueError(
                        f"{self.part}: was made with {row}, not {self.settings}: delete it to start again."
                    )
                if number:
                    if not isinstance(row, dict) or not row.keys() >= set(COLUMNS):
                        break
                    if row["score"] is not None:
                        done.add(row["image"])
                keep += len(line)
        os.truncate(self.part, keep)
        return done

    def __enter__(self) -> ScoreFile:
        with self._part_named():
            self._file: IO[str] = open(self.part, "w" if self._fresh else "a", encoding="utf-8")
            if self._fresh:
                self._file.write(json.dumps(self.settings) + "\n")
        return self

    def write(self, row: ScoredImage) -> None:
        """Keep one result; once it is flushed it survives the death of this process."""
        # ASCII escapes carry file names that are no valid UTF-8, too.
        with self._part_named():
            self._file.write(json.dumps({"image": row.image, "score": row.score, "error": row.error}) + "\n")

    def flush(self) -> None:
        """Hand the rows so far to the operating system."""
        with self._part_named():
            self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(OSError):  # where the disk is full, that is what is being said already
                self._file.close()
            return
        with self._part_named():
            self._file.close()
        self._finish()

    @contextmanager
    def _part_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{self.part}: cannot be written ({reason(error)}); make room, and resume: what it holds is kept."
            ) from error

    def _finish(self) -> None:
        write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[self.path.suffix.lower()]
        with written_file(self.path) as temporary:
            write(self._rows(), temporary)
        self.part.unlink()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in the order of the pictures, of a repeated one the last."""
        with open(self.part, "rb") as file:
            file.readline()
            offsets: dict[str, int] = {}
            start = file.tell()
            for line in iter(file.readline, b""):
                offsets[json.loads(line)["image"]] = start
                start += len(line)
            for image in self.images:
                file.seek(offsets[image])
                yield json.loads(file.readline())


def _write_csv(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.string()), ("score", pa.float64()), ("error", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            # Parquet text is UTF-8: bytes of other file names are shown by their replacement character.
            row["image"] = row["image"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            batch.append(row)
            if len(batch) == 10_000:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
