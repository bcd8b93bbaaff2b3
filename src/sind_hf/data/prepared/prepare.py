"""Prepare a dataset (see `sind_hf.data.prepared.folder`): in parallel, resumable, within the free disk space."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sind_hf import __version__
from sind_hf.configuration_sind import GRID
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import link_fault, require_image_root, require_utf8_name
from sind_hf.data.prepared.folder import (
    INDEX_FILE,
    MANIFEST_FILE,
    Settings,
    ShardRecord,
    SourceFile,
    file_sha256,
    is_prepared,
)
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import atomic_file, counted, reason, remove_leftovers, sole_use, write_json
from sind_hf.image_processing_sind import (
    MAX_FULL_ASPECT,
    ImageError,
    ResizeBackend,
    StripImage,
    load_image,
    local_image_size,
    open_image,
    printable,
    resize_images,
)

#: Images in a shard, about 250 MB at the usual shapes. A kill loses only unfinished shards.
SHARD_IMAGES = 128
# Bytes of a record batch. With larger batches fewer places are read to open a shard.
_BATCH_BYTES = 64 * 2**20
# The headers of so many images are enough to estimate the disk use of any number within the margin.
_MEASURED_IMAGES = 2000
_MARGIN = 1.03
_OURS = re.compile(r"shard-\d{5,}\.(arrow|json)")
_SHARD_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("global_picture", pa.large_binary(), nullable=False),
        pa.field("local_picture", pa.large_binary(), nullable=False),
        # Shape of local_picture, which is the RGB source if local_is_source.
        pa.field("local_height", pa.int32(), nullable=False),
        pa.field("local_width", pa.int32(), nullable=False),
        pa.field("local_is_source", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class DiskUse:
    """Disk use of a preparation that is about to start: images to prepare, bytes that they need, and free bytes."""

    folder: Path
    images: int
    needed: int
    free: int

    def __str__(self) -> str:
        return (
            f"preparing {counted(self.images, 'image')} takes {self.needed / 1e9:,.2f} GB in {self.folder}, "
            f"where {self.free / 1e9:,.2f} GB are free"
        )


@dataclass(frozen=True)
class PreparedResult:
    """Result of a preparation.

    Attributes:
        done: Number of images that the folder now holds.
        reused: Number of those that an earlier run had prepared.
        failures: (image, reason) of the images that could not be prepared and are left out.
        bytes: Size of the shards.
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
    shard_images: int = SHARD_IMAGES,
    verify: bool = False,
    follow_links: bool = False,
    announce: Callable[[DiskUse], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedResult:
    """Prepare the images of a manifest. A new run after an interruption or a change prepares only what is missing.

    A shard of an earlier run is kept if its settings and images are the same and no source file has changed. Images
    that cannot be read are left out and named in the result. The next run tries them again if their file exists.

    Args:
        image_root: Folder that the image paths are relative to.
        output_dir: Folder for the prepared data. It is finished once it holds `index.json`.
        view_size: Side s of the views: the image processor's `size`.
        resize_backend: The image processor's `resize_backend`.
        workers: Processes that prepare shards; 0 prepares in this process.
        shard_images: Number of images in a shard.
        verify: Whether to compare the shards of earlier runs with their checksums, and make damaged ones again.
        follow_links: Whether symbolic links may lead out of the image root.
        announce: Called with the disk use before anything is written.
        progress: Called with (images done, images in all) after each shard.

    Raises:
        ValueError: If the manifest or an option is not valid, the image root is not a folder, the disk has too little
            room, or another run is writing to the folder; nothing is written then. Also if the disk fills up later.
    """
    root, folder = Path(image_root).resolve(), Path(output_dir)
    _check(manifest, root, folder, view_size, resize_backend, shard_images)
    with sole_use(folder):
        settings = Settings(view_size, resize_backend)
        images = [entry.image for entry in manifest.entries]
        shards = {
            f"shard-{number:05d}.arrow": images[start : start + shard_images]
            for number, start in enumerate(range(0, len(images), shard_images))
        }
        reusable = {name: _reusable_shard(folder / name, shards[name], settings, root, verify) for name in shards}
        records = {name: record for name, record in reusable.items() if record is not None}
        reused = sum(record.rows for record in records.values())

        kept = {*records, *map(_record_file, records)}
        leftovers = [path for path in folder.glob("shard-*") if _OURS.fullmatch(path.name) and path.name not in kept]
        remove_leftovers(folder, "shard-*")
        missing = [(name, part) for name, part in shards.items() if name not in records]
        to_write = [image for _, part in missing for image in part]
        free = _free_bytes(folder) + sum(path.stat().st_size for path in leftovers)
        use = DiskUse(folder, len(to_write), estimate_bytes(to_write, root, view_size), free)
        if announce is not None:
            announce(use)
        if use.needed > use.free:
            raise ValueError(f"Not enough room: {use}; free some, or choose another output folder.")

        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX_FILE).unlink(missing_ok=True)  # marks the folder as unfinished
        for path in leftovers:
            path.unlink(missing_ok=True)
        done = len(images) - len(to_write)
        if progress is not None:
            progress(done, len(images))
        for record in _in_parallel(_ShardWork(root, folder, settings, follow_links, missing), workers):
            records[record.file] = record
            done += len(record.sources)
            if progress is not None:
                progress(done, len(images))
        finished = [records[name] for name in shards]
        try:
            _finish(folder, manifest, root, settings, finished)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be finished ({reason(error)}); make room, and run again.") from error
        sources = [source for record in finished for source in record.sources]
        return PreparedResult(
            done=sum(record.rows for record in finished),
            reused=reused,
            failures=[(source.image, source.failure) for source in sources if source.failure is not None],
            bytes=sum(record.bytes for record in finished),
        )


def _check(manifest: Manifest, root: Path, folder: Path, view_size: int, backend: str, shard_images: int) -> None:
    if problems := manifest.validate():
        raise ValueError(f"{manifest.dataset}: {problems[0]}")
    require_utf8_name(require_image_root(root))
    if view_size <= 0 or view_size % (8 * GRID):
        raise ValueError(f"view_size is {view_size}: it must be a positive multiple of {8 * GRID}.")
    if backend not in ("torch", "pillow"):
        raise ValueError(f"resize_backend is {backend!r}: it must be 'torch' or 'pillow'.")
    if shard_images < 1:
        raise ValueError(f"shard_images is {shard_images}: a shard holds at least one image.")
    require_utf8_name(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the prepared data.")
    if is_prepared(folder) and (held := Manifest.load(folder / MANIFEST_FILE).dataset) != manifest.dataset:
        raise ValueError(f"{folder}: holds prepared data of {held}, not of {manifest.dataset}; choose another folder.")


# --- disk --------------------------------------------------------------------------------------------------------


def estimate_bytes(images: Sequence[str], image_root: str | os.PathLike[str], view_size: int = 224) -> int:
    """Estimate the disk use of prepared images from the sizes in the headers of up to 2,000 of them.

    Images without a readable header do not count, because they will not be prepared.
    """
    if not images:
        return 0
    spread = np.linspace(0, len(images) - 1, min(len(images), _MEASURED_IMAGES)).round().astype(int)
    measured = sum(_image_bytes(Path(image_root) / images[index], view_size) for index in spread)
    exact = len(spread) == len(images)
    return int(measured * len(images) / len(spread) * (1 if exact else _MARGIN)) + 4096 * len(images)


def _image_bytes(path: Path, view_size: int) -> int:
    try:
        with open_image(path) as image:
            width, height = image.size
    except ImageError:
        return 0
    side = 8 * view_size // 7
    tall, wide = local_image_size(width, height, view_size)
    strip = max(tall, wide) > MAX_FULL_ASPECT * min(tall, wide)
    return 3 * (side * side + (width * height if strip else tall * wide))


def _free_bytes(folder: Path) -> int:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


# --- shards ------------------------------------------------------------------------------------------------------


def _record_file(shard_file: str) -> str:
    return shard_file.removesuffix(".arrow") + ".json"


def _reusable_shard(path: Path, images: list[str], settings: Settings, root: Path, verify: bool) -> ShardRecord | None:
    """Return the record of a shard of an earlier run if a new shard would be the same; else None."""
    try:
        record = ShardRecord.from_file(path.with_suffix(".json"))
        if record.settings != settings or path.stat().st_size != record.bytes:
            return None
        if verify and file_sha256(path) != record.sha256:
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


def _finish(folder: Path, manifest: Manifest, root: Path, settings: Settings, records: list[ShardRecord]) -> None:
    manifest.save(folder / MANIFEST_FILE)
    files = {MANIFEST_FILE: file_sha256(folder / MANIFEST_FILE)}
    for record in records:
        files[record.file] = record.sha256
        files[_record_file(record.file)] = file_sha256(folder / _record_file(record.file))
    write_json(folder / INDEX_FILE, {"settings": settings._asdict(), "image_root": str(root), "files": files})


@dataclass(frozen=True, eq=False)
class _ShardWork(TorchDataset):
    """Make the i-th missing shard on access; return its record, or the reason why it cannot be written."""

    root: Path
    folder: Path
    settings: Settings
    follow_links: bool
    shards: list[tuple[str, list[str]]]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> ShardRecord | str:
        name, images = self.shards[index]
        try:
            return self._write(name, images)
        except ValueError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            return f"{self.folder / name}: cannot be written ({reason(error.__cause__)})"

    def _write(self, name: str, images: list[str]) -> ShardRecord:
        """Write one shard under a temporary name, and its record last."""
        sources = []
        inside: dict[str, bool] = {}
        with atomic_file(self.folder / name) as part:
            with part.open("wb") as sink, pa.ipc.new_stream(sink, _SHARD_SCHEMA) as stream:
                rows: list[dict[str, Any]] = []
                buffered = 0
                for image in images:
                    _stop_if_abandoned()
                    refused = None if self.follow_links else link_fault(self.root, image, inside)
                    source, row = _prepare_image(self.root, image, self.settings, refused)
                    sources.append(source)
                    if row is not None:
                        rows.append(row)
                        buffered += len(row["global_picture"]) + len(row["local_picture"])
                    if buffered >= _BATCH_BYTES:
                        stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SHARD_SCHEMA))
                        rows, buffered = [], 0
                if rows:
                    stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SHARD_SCHEMA))
            versions = {"sind-hf": __version__, "torch": version("torch"), "pillow": version("pillow")}
            record = ShardRecord(name, self.settings, versions, sources, part.stat().st_size, file_sha256(part))
            # An old record must not describe the new shard. A shard without a record is made again.
            (self.folder / _record_file(name)).unlink(missing_ok=True)
        write_json(self.folder / _record_file(name), record.to_json())
        return record


def _in_parallel(work: _ShardWork, workers: int) -> Iterator[ShardRecord]:
    workers = min(workers, len(work))
    # A data loader, because it takes care of worker processes. Shards come in the order in which they are finished.
    loader = DataLoader(
        work,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        collate_fn=_unchanged,
        in_order=False,
    )
    with worker_deaths_named("run prepare again to continue"):
        for outcome in loader:
            if isinstance(outcome, str):
                raise ValueError(f"{outcome}; make room or check the folder, and run prepare again to continue.")
            yield outcome


def _unchanged(outcome: Any) -> Any:
    return outcome


def _prepare_image(
    root: Path, image: str, settings: Settings, refused: str | None
) -> tuple[SourceFile, dict[str, Any] | None]:
    """Return the state of a source image, and its row of the shard; None if it is refused or cannot be read."""
    path = root / image
    try:
        state = path.stat()
    except OSError as error:
        return SourceFile(image, failure=error.strerror or "cannot be read"), None
    source = SourceFile(image, state.st_size, state.st_mtime_ns)
    if refused is not None:
        return source._replace(failure=refused), None
    try:
        checksum = file_sha256(path)
        loaded = load_image(path)
    except (ImageError, OSError) as error:
        text = str(error) if isinstance(error, ImageError) else str(error.strerror)
        return source._replace(failure=text.removeprefix(f"{printable(path)}: ")), None
    global_image, local_image = resize_images(loaded, settings.view_size, settings.resize_backend)
    strip = isinstance(local_image, StripImage)
    local = np.asarray(local_image.image) if isinstance(local_image, StripImage) else local_image
    row = {
        "image": image,
        "global_picture": global_image.tobytes(),
        "local_picture": local.tobytes(),
        "local_height": local.shape[0],
        "local_width": local.shape[1],
        "local_is_source": strip,
    }
    return source._replace(sha256=checksum), row


def _stop_if_abandoned() -> None:
    """End a worker whose main process was killed, so that it does not write while the next run does."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(1)
