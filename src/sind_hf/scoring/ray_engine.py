"""Score a job on Ray Data: actors on one machine or a cluster take its images, and results keep the input order.

A chunk of images is one row of a Ray dataset, and one call of an actor, which holds the model and scores it as
`score_stream` does anywhere else: batches are the same, and so are scores. Ray restarts an actor that dies and gives
its chunk to another; a chunk's results come back once, whole, or not at all.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from accelerate import PartialState

from sind_hf.checkpoints import load_scorer
from sind_hf.files import reason
from sind_hf.image_processing_sind import ViewMode
from sind_hf.scoring.images import LocatedImage
from sind_hf.scoring.scorer import ScoredImage, score_stream

BATCHES_A_CHUNK = 8
# One execution of Ray starts its actors, and takes all its input at once: as much as costs little to hold.
CHUNKS_A_ROUND, BYTES_A_ROUND = 1000, 256 * 2**20


@dataclass(frozen=True)
class RayEngine:
    """Scores a stream of images on the actors of a Ray cluster; `run_job` takes it as its engine.

    The cluster is that of `RAY_ADDRESS`, or one that Ray was connected to before; else a local one is started. Every
    machine of it reads checkpoint and images at the same paths.

    Args:
        checkpoint: Folder, Hub repository, or `.onnx` file.
        device: Device of each actor; see `load_scorer`, also for `dtype` and `fast_decode`. With GPUs in the cluster,
            each actor takes one, unless this is `"cpu"`.
        views: See `score_images`, also for `batch_size`, `workers` (of each actor) and `quality_maps`.
        actors: Number of actors; default: one for each GPU, or else as many as the CPUs allow with their loaders.

    Raises:
        ValueError: If Ray is not installed, or this is one of several processes of `accelerate launch`.
    """

    checkpoint: str
    device: str | None = None
    dtype: str = "float32"
    fast_decode: bool | Literal["auto"] | None = None
    views: ViewMode | None = None
    batch_size: int = 16
    workers: int = 0
    quality_maps: bool = False
    actors: int | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError('Scoring on Ray needs Ray Data: pip install "sind-hf[ray]"')
        if PartialState().num_processes > 1:
            raise ValueError("Ray starts its own processes: run this command once, without accelerate launch.")

    def __call__(self, images: Iterable[LocatedImage]) -> Iterator[tuple[LocatedImage, ScoredImage]]:
        """Yield every image with its result, in the order of the stream.

        Raises:
            ValueError: If Ray cannot be started, or an actor fails for another reason than its death.
        """
        ray = _connect()
        stream = iter(images)
        while chunks := list(self._one_round(stream)):
            try:
                yield from self._score(ray, chunks)
            except ray.exceptions.RayError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
                raise ValueError(f"Ray: {lines[-1]}; what was scored is kept; continue with --resume.") from error

    def _one_round(self, stream: Iterator[LocatedImage]) -> Iterator[list[LocatedImage]]:
        size = 0
        for _ in range(CHUNKS_A_ROUND):
            chunk = list(islice(stream, self.batch_size * BATCHES_A_CHUNK))
            if not chunk:
                return
            size += sum(len(image.source["bytes"]) for image in chunk if isinstance(image.source, dict))
            yield chunk
            if size > BYTES_A_ROUND:
                return

    def _score(self, ray: Any, chunks: list[list[LocatedImage]]) -> Iterator[tuple[LocatedImage, ScoredImage]]:
        gpus = int(ray.cluster_resources().get("GPU", 0)) if self.device != "cpu" else 0
        cpus = int(ray.cluster_resources().get("CPU", 1))
        actors = min(self.actors or gpus or max(cpus // (1 + self.workers), 1), len(chunks))
        rows = ray.data.from_items(
            [{"images": pickle.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks)
        ).map_batches(
            _Actor,
            fn_constructor_args=(self, os.getcwd()),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=0 if gpus else min(1 + self.workers, cpus / actors),  # so that the actors asked for always fit
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=-1,
        )
        for chunk, row in zip(chunks, rows.iter_rows(), strict=True):
            yield from zip(chunk, pickle.loads(row["results"]), strict=True)


class _Actor:
    """A process that holds the model."""

    def __init__(self, engine: RayEngine, folder: str) -> None:
        self.engine = engine
        if os.path.isdir(folder):
            os.chdir(folder)  # relative paths mean what they meant where the job was started
        self.model, self.processor = load_scorer(
            engine.checkpoint, device=engine.device, dtype=engine.dtype, fast_decode=engine.fast_decode
        )

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        results = []
        for chunk in table["images"].to_pylist():
            scored = score_stream(
                self.model,
                self.processor,
                pickle.loads(chunk),
                views=self.engine.views,
                batch_size=self.engine.batch_size,
                workers=self.engine.workers,
                quality_maps=self.engine.quality_maps,
            )
            results.append(pickle.dumps([row for _, row in scored]))
        return pa.table({"results": pa.array(results, pa.large_binary())})


def _connect() -> Any:
    """Connect to a Ray cluster without its messages, and return the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    if not ray.is_initialized():
        local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
        except Exception as error:  # Ray raises bare exceptions if one of its services does not start in time
            raise ValueError(f"Ray cannot be started ({reason(error)}).") from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Its way to pass options of actors changes between versions; the one used here is taken by all of them.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
