"""Prepare a dataset (see `sind_hf.data.prepared.folder`): in parallel, resumable, within the free disk space."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sind_hf.configuration_sind import GRID
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import require_utf8_name
from sind_hf.data.prepared.folder import (
    INDEX_FILE,
    MANIFEST_FILE,
    SHARD_SCHEMA,
    Settings,
    ShardRecord,
    SourceFile,
    file_sha256,
    is_prepared,
)
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import atomic_file, reason, remove_leftovers, sole_use, write_json
from sind_hf.image_processing_sind import (
    MAX_FULL_ASPECT,
    ImageError,
    ResizeBackend,
    StripPicture,
    load_image,
    local_picture_size,
    open_image,
    printable,
    resize_pictures,
)
from sind_hf.version import __version__

#: Pictures in a shard: about 250 MB at the usual shapes. A kill loses the shards in work, no more.
SHARD_PICTURES = 128
# A record batch is buffered until it has this many bytes; the more, the fewer places are read to open a shard.
_BATCH_BYTES = 64 * 2**20
# Headers of this many pictures are enough to know the disk use of any number within the margin.
_MEASURED_PICTURES = 2000
_MARGIN = 1.03
_OURS = re.compile(r"shard-\d{5,}\.(arrow|json)")


@dataclass(frozen=True)
class DiskUse:
    """What a preparation is about to write.

    Attributes:
        folder: Where to.
        pictures: Pictures that are still to be prepared.
        needed: Bytes that they will take, estimated from the sizes in their headers.
        free: Bytes that are free there.
    """

    folder: Path
    pictures: int
    needed: int
    free: int

    def __str__(self) -> str:
        return (
            f"{self.pictures:,} pictures to prepare need {self.needed / 1e9:,.2f} GB in {self.folder}; "
            f"{self.free / 1e9:,.2f} GB are free"
        )


@dataclass(frozen=True)
class PreparedResult:
    """The outcome of a preparation.

    Attributes:
        done: Pictures that the folder now holds.
        reused: How many of them an earlier run had prepared.
        failures: (image, reason) of those that could not be prepared and are left out.
        bytes: What the folder takes.
    """

    done: int
    reused: int
    failures: list[tuple[str, str]]
    bytes: int


def prepare(
    manifest: Manifest,
    image_root: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    view_size: int = 224,
    resize_backend: ResizeBackend = "torch",
    workers: int = 0,
    shard_pictures: int = SHARD_PICTURES,
    verify: bool = False,
    announce: Callable[[DiskUse], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedResult:
    """Prepare the pictures of a manifest. Run again after an interruption or a change, it does what is missing.

    A shard is taken over from an earlier run when its settings and its pictures are the same and none of the files
    was changed. Pictures that cannot be read are left out and named in the result; those whose file exists are tried
    again by the next run.

    Args:
        manifest: Which pictures.
        image_root: Folder that its paths are relative to.
        output_dir: Folder for the prepared data. It counts as finished once its `index.json` is there.
        view_size: Side s of the views: the image processor's `size`.
        resize_backend: The image processor's `resize_backend`.
        workers: Processes that prepare shards; 0 prepares in this one.
        shard_pictures: Pictures in a shard.
        verify: Whether to compare shards of earlier runs with their checksums, and make damaged ones again.
        announce: Called once before anything is written.
        progress: Called with (pictures done, pictures in all) after each shard.

    Raises:
        ValueError: When the manifest or an option is not valid, the image root is no folder, the disk has not enough
            room, or another run is writing there; nothing has been written then. Also when the disk fills up in
            spite of that.
    """
    root, folder = Path(image_root).resolve(), Path(output_dir)
    _check(manifest, root, view_size, resize_backend, shard_pictures)
    _check_folder(folder, manifest)
    with sole_use(folder):
        settings = Settings(view_size, resize_backend)
        images = [entry.image for entry in manifest.entries]
        plan = [images[start : start + shard_pictures] for start in range(0, len(images), shard_pictures)]
        records = {
            number: _finished(folder, number, plan[number], settings, root, verify) for number in range(len(plan))
        }
        missing = [number for number, record in records.items() if record is None]
        reused = sum(record.rows for record in records.values() if record is not None)

        kept = {_shard_file(number) for number, record in records.items() if record is not None}
        leftovers = _leftovers(folder, kept)
        remove_leftovers(folder, "shard-*")
        to_write = [image for number in missing for image in plan[number]]
        free = _free_bytes(folder) + sum(path.stat().st_size for path in leftovers)
        use = DiskUse(folder, len(to_write), estimate_bytes(to_write, root, view_size), free)
        if announce is not None:
            announce(use)
        if use.needed > use.free:
            raise ValueError(f"Not enough room: {use}; free some, or choose another output folder.")

        _begin(folder, leftovers)
        done = len(images) - len(to_write)
        if progress is not None:
            progress(done, len(images))
        work = _ShardWork(root, folder, settings, [(number, plan[number]) for number in missing])
        for number, made in _in_parallel(work, workers):
            records[number] = made
            done += len(plan[number])
            if progress is not None:
                progress(done, len(images))
        finished = [record for number in range(len(plan)) if (record := records[number]) is not None]
        try:
            _finish(folder, manifest, root, settings, finished)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be finished ({reason(error)}); make room, and run again.") from error
        return PreparedResult(
            done=sum(record.rows for record in finished),
            reused=reused,
            failures=[
                (source.image, source.failure)
                for record in finished
                for source in record.sources
                if source.failure is not None
            ],
            bytes=sum(record.bytes for record in finished),
        )


def _check(manifest: Manifest, root: Path, view_size: int, backend: str, shard_pictures: int) -> None:
    if problems := manifest.validate():
        raise ValueError(f"{manifest.dataset}: {problems[0]}")
    if not root.is_dir():
        raise ValueError(f"{root}: the image root is not a folder; name the folder of the pictures.")
    require_utf8_name(root)
    if view_size <= 0 or view_size % (8 * GRID):
        raise ValueError(f"view_size is {view_size}: it must be a positive multiple of {8 * GRID}.")
    if backend not in ("torch", "pillow"):
        raise ValueError(f"resize_backend is {backend!r}: it must be 'torch' or 'pillow'.")
    if shard_pictures < 1:
        raise ValueError(f"shard_pictures is {shard_pictures}: a shard holds at least one picture.")


def _check_folder(folder: Path, manifest: Manifest) -> None:
    require_utf8_name(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the prepared data.")
    if is_prepared(folder) and (held := Manifest.load(folder / MANIFEST_FILE).dataset) != manifest.dataset:
        raise ValueError(f"{folder}: holds prepared data of {held}, not of {manifest.dataset}; choose another folder.")


# --- disk --------------------------------------------------------------------------------------------------------


def estimate_bytes(images: Sequence[str], image_root: str | os.PathLike[str], view_size: int = 224) -> int:
    """Estimate what prepared pictures take on the disk, from the sizes in the headers of up to 2,000 of them.

    Pictures without a readable header count nothing: they will not be prepared.

    Args:
        images: Paths relative to `image_root`.
        image_root: Folder of the pictures.
        view_size: Side s of the views.
    """
    if not images:
        return 0
    spread = np.linspace(0, len(images) - 1, min(len(images), _MEASURED_PICTURES)).round().astype(int)
    measured = sum(_picture_bytes(Path(image_root) / images[index], view_size) for index in spread)
    exact = len(spread) == len(images)
    return int(measured * len(images) / len(spread) * (1 if exact else _MARGIN)) + 4096 * len(images)


def _picture_bytes(path: Path, view_size: int) -> int:
    try:
        with open_image(path) as image:
            width, height = image.size
    except ImageError:
        return 0
    side = 8 * view_size // 7
    tall, wide = local_picture_size(width, height, view_size)
    strip = max(tall, wide) > MAX_FULL_ASPECT * min(tall, wide)
    return 3 * (side * side + (width * height if strip else tall * wide))


def _free_bytes(folder: Path) -> int:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


# --- the folder --------------------------------------------------------------------------------------------------


def _shard_file(number: int) -> str:
    return f"shard-{number:05d}.arrow"


def _record_file(shard_file: str) -> str:
    return shard_file.removesuffix(".arrow") + ".json"


def _finished(
    folder: Path, number: int, images: list[str], settings: Settings, root: Path, verify: bool
) -> ShardRecord | None:
    """The record of a shard of an earlier run, if the shard is what would be made now."""
    name = _shard_file(number)
    try:
        record = ShardRecord.from_file(folder / _record_file(name))
        if record.settings != settings or (folder / name).stat().st_size != record.bytes:
            return None
        if verify and file_sha256(folder / name) != record.sha256:
            return None
    except (OSError, ValueError):
        return None
    if [source.image for source in record.sources] != images:
        return None
    for source in record.sources:
        worth_another_try = source.failure is not None and source.size is not None
        if worth_another_try or not source.is_unchanged(root):
            return None
    return record


def _leftovers(folder: Path, kept_shards: set[str]) -> list[Path]:
    """What earlier runs left in the folder that is of no use now."""
    if not folder.is_dir():
        return []
    kept = kept_shards | {_record_file(name) for name in kept_shards}
    return [path for path in folder.iterdir() if _OURS.fullmatch(path.name) and path.name not in kept]


def _begin(folder: Path, leftovers: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX_FILE).unlink(missing_ok=True)  # from here on the folder is not finished
    for path in leftovers:
        path.unlink(missing_ok=True)


def _finish(folder: Path, manifest: Manifest, root: Path, settings: Settings, records: list[ShardRecord]) -> None:
    manifest.save(folder / MANIFEST_FILE)
    files = {MANIFEST_FILE: file_sha256(folder / MANIFEST_FILE)}
    for record in records:
        files[record.file] = record.sha256
        files[_record_file(record.file)] = file_sha256(folder / _record_file(record.file))
    write_json(folder / INDEX_FILE, {"settings": settings._asdict(), "image_root": str(root), "files": files})


# --- shards ------------------------------------------------------------------------------------------------------


class _ShardWork(TorchDataset):
    """Item i: makes the i-th missing shard; its number and record, or the words of what went wrong."""

    def __init__(self, root: Path, folder: Path, settings: Settings, shards: list[tuple[int, list[str]]]) -> None:
        self.root, self.folder, self.settings, self.shards = root, folder, settings, shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> tuple[int, ShardRecord] | str:
        number, images = self.shards[index]
        try:
            return number, _write_shard(self.root, self.folder, self.settings, _shard_file(number), images)
        except ValueError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            return f"{self.folder / _shard_file(number)}: cannot be written ({reason(error.__cause__)})"


def _in_parallel(work: _ShardWork, workers: int) -> Iterator[tuple[int, ShardRecord]]:
    workers = min(workers, len(work))
    # The loader of training, for its care of worker processes; shards are taken as they get ready.
    loader = DataLoader(
        work,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        collate_fn=_unchanged,
        in_order=False,
    )
    with worker_deaths_named("run prepare again to go on"):
        for outcome in loader:
            if isinstance(outcome, str):
                raise ValueError(f"{outcome}; make room or check the folder, and run prepare again to go on.")
            yield outcome


def _unchanged(outcome: Any) -> Any:
    return outcome


def _write_shard(root: Path, folder: Path, settings: Settings, name: str, images: list[str]) -> ShardRecord:
    """Write one shard whole: under a temporary name first, its record last."""
    sources = []
    with atomic_file(folder / name) as part:
        with part.open("wb") as sink, pa.ipc.new_stream(sink, SHARD_SCHEMA) as stream:
            rows: list[dict[str, object]] = []
            buffered = 0
            for image in images:
                _stop_if_abandoned()
                source, row, size = _prepare_picture(root, image, settings)
                sources.append(source)
                if row is not None:
                    rows.append(row)
                    buffered += size
                if buffered >= _BATCH_BYTES:
                    stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA))
                    rows, buffered = [], 0
            if rows:
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA))
        versions = {"sind-hf": __version__, **{name: importlib.metadata.version(name) for name in ("torch", "pillow")}}
        record = ShardRecord(name, settings, versions, sources, part.stat().st_size, file_sha256(part))
        # A record without its shard is worth nothing, a shard without its record is made again.
        (folder / _record_file(name)).unlink(missing_ok=True)
    write_json(folder / _record_file(name), record.to_json())
    return record


def _prepare_picture(root: Path, image: str, settings: Settings) -> tuple[SourceFile, dict[str, object] | None, int]:
    path = root / image
    try:
        state = path.stat()
    except OSError as error:
        return SourceFile(image, failure=error.strerror or "cannot be read"), None, 0
    try:
        checksum = file_sha256(path)
        picture = load_image(path)
    except (ImageError, OSError) as error:
        text = str(error) if isinstance(error, ImageError) else str(error.strerror)
        reason = text.removeprefix(f"{printable(path)}: ")
        return SourceFile(image, state.st_size, state.st_mtime_ns, None, reason), None, 0
    global_picture, local_picture = resize_pictures(picture, settings.view_size, settings.resize_backend)
    strip = isinstance(local_picture, StripPicture)
    local = np.asarray(local_picture.image) if isinstance(local_picture, StripPicture) else local_picture
    row: dict[str, object] = {
        "image": image,
        "global_picture": global_picture.tobytes(),
        "local_picture": local.tobytes(),
        "local_height": local.shape[0],
        "local_width": local.shape[1],
        "local_is_source": strip,
    }
    return SourceFile(image, state.st_size, state.st_mtime_ns, checksum), row, global_picture.nbytes + local.nbytes


def _stop_if_abandoned() -> None:
    """End a worker whose main process was killed: it must not write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(1)
