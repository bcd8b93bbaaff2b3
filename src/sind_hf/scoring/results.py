"""Scores on disk: rows are kept as they arrive, and the finished file appears complete or not at all.

While a job runs, its rows go to `OUTPUT.part`, one JSON object a line, flushed batch by batch; where several processes
share a job, those of the others go to `OUTPUT.part-1`, `OUTPUT.part-2` … When it ends they are joined and written in
the wanted format to a temporary file, which replaces OUTPUT in one step. After an interruption the parts are joined,
too, and say what is done: the first line holds the identity of the job, and every row the stamp of its image.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from sind_hf.files import atomic_file, counted, reason
from sind_hf.image_processing_sind import open_regular_file, printable
from sind_hf.scoring.scorer import ScoredImage

FORMATS = (".csv", ".jsonl", ".parquet")
COLUMNS = ("image", "score", "error")
# Cells that begin like this are formulas to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
# Settings that are digests, and what a message calls a different one.
DIGESTS = {
    "weights": "other weights",
    "config": "another model configuration",
    "preprocessor": "another preprocessor configuration",
}


class ScoreFile:
    """A CSV, JSON Lines or Parquet file with the columns image, score, error, and the parts that it is made from.

    One process collects before and finishes after a job; each writes its own part meanwhile.

    Args:
        path: File to write; its extension decides the format.
        settings: All that scores depend on besides the images; a job with other settings is not resumed.
        prefix_formulas: Put an apostrophe before cells of a CSV file that a spreadsheet would take for formulas.

    Raises:
        ValueError: If the extension is unknown.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: dict[str, Any], *, prefix_formulas: bool = False
    ) -> None:
        self.path = Path(path)
        self.prefix_formulas = prefix_formulas
        self.part = self.path.with_name(self.path.name + ".part")
        self.settings = settings
        if self.path.suffix.lower() not in FORMATS:
            raise ValueError(f"{self.path}: unknown format; use one of {', '.join(FORMATS)}.")

    def collect(self, *, resume: bool = False) -> dict[str, str | None]:
        """Find what an interrupted job has left behind, and join its parts.

        Returns:
            The images that have a score, with their stamps. Images that failed are tried again.

        Raises:
            ValueError: If parts hold scores that were made with other settings, or that are not to be resumed.
        """
        done: dict[str, str | None] = {}
        parts = [part for part in (self.part, *self._shards()) if part.exists()]
        for part in parts:
            self._read_done(part, done)
        if done and not resume:
            raise ValueError(
                f"{self.part}: holds {counted(len(done), 'score')} of an interrupted job: continue it (--resume) or "
                "delete this file."
            )
        if done:
            self._join()
        else:
            for part in parts:
                part.unlink()
        return done

    def open_part(self, process: int = 0) -> Part:
        """Open the part that a process, known by its number, adds its rows to."""
        path = self.part if process == 0 else self.part.with_name(f"{self.part.name}-{process}")
        return Part(path, self.settings)

    def read(self, images: Iterable[str]) -> Iterator[ScoredImage]:
        """Yield the results of all parts, which must be closed by now.

        Args:
            images: Names of all images of the job, each once, in the wanted order.

        Raises:
            ValueError: If one of them has no row.
        """
        self._join()
        return (ScoredImage(row["image"], row["score"], row["error"]) for row in self._rows(images))

    def finish(self, images: Iterable[str], chosen: Iterable[str] | None = None) -> None:
        """Write the file from all parts, which must be closed by now, and remove them.

        Args:
            images: Names of all images of the job, each once.
            chosen: Names of those that go to the file, in its order; default: all of them.

        Raises:
            ValueError: If an image has no row, or the file cannot be written; the parts are kept.
        """
        self._join()
        writers: dict[str, Callable[[Iterator[dict[str, Any]], Path], None]] = {
            ".csv": partial(_write_csv, prefix_formulas=self.prefix_formulas),
            ".jsonl": _write_jsonl,
            ".parquet": _write_parquet,
        }
        with atomic_file(self.path) as temporary:
            writers[self.path.suffix.lower()](self._rows(images, chosen), temporary)
        self.part.unlink()

    def _shards(self) -> list[Path]:
        named = self.part.parent.glob(f"{glob.escape(self.part.name)}-*")
        return sorted(path for path in named if path.name.removeprefix(f"{self.part.name}-").isdecimal())

    def _read_done(self, part: Path, done: dict[str, str | None]) -> None:
        """Add the images that have a score to `done`, and cut off what the interruption left damaged."""
        made_with, keep = None, 0
        with open_regular_file(part) as file:
            for number, line in enumerate(file):
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                if number == 0:
                    made_with = row
                elif not isinstance(row, dict) or not row.keys() >= set(COLUMNS):
                    break
                elif row["score"] is not None:
                    if made_with != self.settings:
                        raise ValueError(
                            f"{part}: was made with {self._difference(made_with)}; delete it to start again."
                        )
                    done[row["image"]] = row.get("stamp")
                else:
                    done.pop(row["image"], None)
                keep += len(line)
        os.truncate(part, keep)

    def _difference(self, made_with: Any) -> str:
        """Say how the settings of a part differ from those of this job."""
        if not isinstance(made_with, dict):
            return "unknown settings"
        texts = []
        for key in sorted({*made_with, *self.settings}):
            before, now = made_with.get(key), self.settings.get(key)
            if before != now:
                texts.append(DIGESTS.get(key, f"{key} {before!r} (now {now!r})"))
        return printable(", ".join(texts))

    def _join(self) -> None:
        """Move the rows of all shards to the part. A process that dies meanwhile repeats rows and loses none."""
        with self.open_part() as joined:
            for shard in self._shards():
                with open(shard, encoding="utf-8") as file:
                    file.readline()  # the settings
                    joined.copy(file)
                joined.flush(sync=True)
                shard.unlink()

    def _rows(self, images: Iterable[str], chosen: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the chosen images in their order, of a repeated one the last."""
        with open_regular_file(self.part) as file:
            file.readline()
            offsets: dict[str, int | None] = dict.fromkeys(images)
            start = file.tell()
            for line in iter(file.readline, b""):
                image = json.loads(line)["image"]
                if image in offsets:  # else the image left the job
                    offsets[image] = start
                start += len(line)
            for image in offsets if chosen is None else chosen:
                if (offset := offsets[image]) is None:
                    raise ValueError(f"{self.part}: holds no result of {printable(image)}: run again with --resume.")
                file.seek(offset)
                row = json.loads(file.readline())
                yield {column: row[column] for column in COLUMNS}


class Part:
    """The rows of one process, written as they arrive. Flushed rows survive the death of the process.

    Raises:
        ValueError: From every method, when the part cannot be written; it names the file.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings

    def __enter__(self) -> Part:
        with self._named():
            self._file: IO[str] = open(self.path, "a", encoding="utf-8")
            if self._file.tell() == 0:
                self._file.write(json.dumps(self.settings) + "\n")
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if kind is not None:
            with suppress(OSError):  # if the disk is full, the error in flight says so
                self._file.close()
            return
        with self._named():
            self._file.close()

    def write(self, row: ScoredImage, stamp: str | None = None) -> None:
        """Keep one result, with the stamp of the image that it belongs to; see `LocatedImage.make_stamp`."""
        # ASCII escapes carry file names that are not valid UTF-8, too.
        values = {"image": row.image, "score": row.score, "error": row.error, "stamp": stamp}
        with self._named():
            self._file.write(json.dumps(values) + "\n")

    def copy(self, lines: Iterable[str]) -> None:
        """Keep rows of another part."""
        with self._named():
            self._file.writelines(lines)

    def flush(self, *, sync: bool = False) -> None:
        """Hand the rows so far to the operating system, or wait until they are on the disk."""
        with self._named():
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written ({reason(error)}); make room, and resume: what it holds is kept."
            ) from error


def _write_csv(rows: Iterator[dict[str, Any]], path: Path, *, prefix_formulas: bool) -> None:
    if prefix_formulas:
        rows = ({name: _prefixed(value) for name, value in row.items()} for row in rows)
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _prefixed(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


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
            # Parquet text is UTF-8: bytes of other file names become \xe9 and the like, so that two names stay two.
            row["image"] = row["image"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            batch.append(row)
            if len(batch) == 10_000:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
