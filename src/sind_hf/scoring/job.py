"""One scoring job: images in, a file of scores and quality maps out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from sind_hf.data.prepared.folder import file_sha256
from sind_hf.distributed import in_all, on_main_process, only_run_in, worker_deaths_named
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, ViewMode
from sind_hf.onnx.model import OnnxSindModel, ScoringModel
from sind_hf.scoring.images import LocatedImage
from sind_hf.scoring.quality_maps import save_overlay
from sind_hf.scoring.results import ScoreFile
from sind_hf.scoring.scorer import ScoredImage, score_stream
from sind_hf.scoring.selection import Selection
from sind_hf.scoring.sources import SourceOptions, Sources, open_sources

Progress = Callable[[int, int | None], None]
Engine = Callable[[Iterable[LocatedImage]], Iterator[tuple[LocatedImage, ScoredImage]]]

# Settings of a configuration that scores do not depend on, or that are compared separately.
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "auto_map")

FEW_IMAGES = 32  # they are scored sooner than loader processes have started
MOST_WORKERS = 8


@dataclass(frozen=True)
class JobResults:
    """The results of a finished job, including those of an earlier run that it resumed.

    `rows` has the order of the input and no quality maps.
    """

    rows: Sequence[ScoredImage]
    sources: Sources

    def find(self, names: Collection[str]) -> dict[str, LocatedImage]:
        """Return images of the job by name; datasets are read again from their beginning."""
        found: dict[str, LocatedImage] = {}
        for image in self.sources:
            if image.name in names:
                found.setdefault(image.name, image)
            if len(found) == len(names):
                break
        return found


def run_job(
    model: ScoringModel,
    processor: SindImageProcessor,
    paths: Sequence[str | os.PathLike[str]],
    *,
    source_options: SourceOptions | None = None,
    views: ViewMode | None = None,
    batch_size: int = 16,
    workers: int | None = 0,
    output: str | os.PathLike[str] | None = None,
    quality_maps: str | os.PathLike[str] | None = None,
    resume: bool = False,
    prefix_formulas: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
    selection: Selection | None = None,
    finished: Callable[[JobResults], None] | None = None,
) -> Iterator[ScoredImage]:
    """Score the images that `paths` stand for, keep the results, and yield them as they come.

    Under `accelerate launch` the processes take batches in turn, and each yields its own results; all of them must be
    taken to the end. The output is one file of all.

    Args:
        model: See `score_images`, also for `processor`, `views` and `batch_size`.
        paths: Files, folders, lists, manifests, prepared folders, datasets; see `open_sources`. An image named twice
            is scored once.
        source_options: Options for manifests and datasets.
        workers: Loader processes; None chooses, see `choose_workers`.
        output: CSV, JSON Lines or Parquet file for the scores; see `ScoreFile`.
        quality_maps: Folder for one overlay per image.
        resume: Continue an interrupted job: yields only what was not done yet, and images that changed since.
        prefix_formulas: See `ScoreFile`.
        progress: Called with (images done, images in all or None if a dataset does not know its size).
        engine: Engine that scores instead of this process, with its own options for scoring.
        selection: Choice and order of the images in the output. All images are scored and yielded.
        finished: Called at the end with all results, in the main process.

    Raises:
        ValueError: On unusable options, or when another job writes the same output; nothing has been scored then.
            Also when a dataset cannot be read to its end, the disk is full or a loader process dies; the scores so
            far are kept then.
    """
    folder = None if quality_maps is None else Path(quality_maps)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot create this folder for quality maps ({error.strerror}).") from None

    # Only what the main process sees counts: others may be on machines with another disk, or look a moment later.
    file = None
    if output is not None:
        settings = _settings(model, processor, views, folder)
        file = on_main_process(lambda: ScoreFile(output, settings, prefix_formulas=prefix_formulas))

    def open_job() -> tuple[Sources, Mapping[str, str | None] | None]:
        sources = open_sources(paths, source_options)
        if next(iter(sources), None) is None:
            raise ValueError("No images to score: the lists are empty.")
        sources.require(processor)
        return sources, None if file is None else file.collect(resume=resume)

    with only_run_in(output) if output is not None else nullcontext():
        sources, done = on_main_process(open_job)
        score = engine or partial(
            score_stream,
            model,
            processor,
            views=views,
            batch_size=batch_size,
            workers=choose_workers(sources.total) if workers is None else workers,
            quality_maps=folder is not None,
        )
        state = PartialState()
        names: dict[str, None] = {}
        own_rows: list[tuple[int, ScoredImage]] = []  # rows of this process, if no file keeps them
        mine = _to_do(sources, done, names, batch_size, state.process_index, state.num_processes)
        kept = "nothing was kept" if file is None else f"the scores so far are in {file.part}, resume to continue"
        with worker_deaths_named(kept), file.open_part(state.process_index) if file else nullcontext() as part:
            for number, (image, row) in enumerate(score(mine), start=1):
                if folder is not None and row.quality_map is not None:
                    row = _save_map(folder, image, row, row.quality_map)
                if part is not None:
                    part.write(row, image.stamp)
                    if number % batch_size == 0:
                        part.flush()
                elif finished is not None:
                    own_rows.append((image.position, replace(row, quality_map=None)))
                if progress is not None:
                    progress(image.position + 1, sources.total)
                yield row
        in_all()  # all parts are closed
        if file is None and finished is not None and state.num_processes > 1:
            own_rows = gather_object(own_rows)

        def finish() -> None:
            chosen: Iterable[str] = names
            if finished is not None or selection is not None:
                own_rows.sort(key=lambda item: item[0])
                rows = [row for _, row in own_rows] if file is None else list(file.read(names))
                if selection is not None:
                    chosen = [row.image for row in selection.choose(rows)]
            if file is not None:
                file.finish(names, chosen)
            if finished is not None:
                finished(JobResults(rows, sources))

        on_main_process(finish)


def choose_workers(images: int | None) -> int:
    """Return the default number of loader processes of a job, whose number of images may be unknown: one per core.

    Loading an image takes about as long as the network of the bundled checkpoint on a CPU, and longer on a GPU.
    """
    if images is not None and images <= FEW_IMAGES:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes of a launch share a machine
    return min(cores if cores > 1 else 0, MOST_WORKERS)


def _to_do(
    sources: Sources,
    done: Mapping[str, str | None] | None,
    names: dict[str, None],
    batch_size: int,
    process: int,
    processes: int,
) -> Iterator[LocatedImage]:
    """Yield the images that one process has to score: whole batches in turn, as a single process would score them.

    `done` holds the stamps of the images that have a score, and is None when nothing is kept; `names` receives the
    names of all images of the job, each once, in order.
    """
    dealt = {True: 0, False: 0}
    for image in sources:
        if image.name in names:
            continue
        position = len(names)
        names[image.name] = None
        scored = done is not None and image.name in done
        # Names alone deal the images: what a process sees on its own disk must not change the share of another.
        mine = dealt[scored] // batch_size % processes == process
        dealt[scored] += 1
        if mine:
            image = replace(image, position=position, stamp=None if done is None else image.make_stamp())
            if done is None or not scored or done[image.name] != image.stamp:
                yield image


def _settings(
    model: ScoringModel, processor: SindImageProcessor, views: ViewMode | None, quality_maps: Path | None
) -> dict[str, Any]:
    """Return what a resumed job must share with the earlier run: all that scores depend on, and the folder of maps."""
    settings: dict[str, Any] = {"weights": _digest_weights(model), "views": views or processor.views}
    settings["config"] = _digest(asdict(model.config) if isinstance(model, OnnxSindModel) else model.config.to_dict())
    settings["preprocessor"] = _digest(processor.to_dict())
    if (dtype := getattr(model, "dtype", torch.float32)) != torch.float32:  # an exported model always is
        settings["dtype"] = str(dtype).removeprefix("torch.")
    if quality_maps is not None:
        settings["quality_maps"] = str(quality_maps.resolve())
    return settings


def _digest(values: Any) -> str:
    """Return the digest of a configuration without its volatile settings."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): kept(item) for key, item in value.items() if key not in VOLATILE}
        return [kept(item) for item in value] if isinstance(value, (list, tuple)) else value

    return hashlib.sha256(json.dumps(kept(values), sort_keys=True, default=str).encode()).hexdigest()


def _digest_weights(model: ScoringModel) -> str:
    if isinstance(model, OnnxSindModel):
        return file_sha256(model.path)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _save_map(
    folder: Path, image: LocatedImage, row: ScoredImage, quality_map: npt.NDArray[np.float32]
) -> ScoredImage:
    try:
        save_overlay(folder, image.name, image.load(), quality_map)
    except ImageError as error:  # the file changed since it was scored
        return ScoredImage(row.image, error=str(error))
    return row
