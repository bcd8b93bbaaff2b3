"""`sind-hf score`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.checkpoints import load_scorer
from sind_hf.cli import terminal
from sind_hf.cli.options import (
    BUNDLED,
    BatchSizeOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    ViewsOption,
    WorkersOption,
)
from sind_hf.distributed import in_all, is_main_process, join_launch, keep_freed_memory
from sind_hf.image_processing_sind import printable
from sind_hf.scoring.job import run_job
from sind_hf.scoring.ray_engine import RayEngine
from sind_hf.scoring.sources import SourceOptions

Engine = Literal["local", "ray"]


def score(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders, .txt lists, .json manifests, prepared folders; datasets: .parquet, "
            "hf://datasets/USER/NAME.",
            show_default=False,
        ),
    ],
    model: ModelOption = BUNDLED,
    views: ViewsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the scores to this file (.csv, .jsonl or .parquet).")
    ] = None,
    prefix_formulas: Annotated[
        bool,
        typer.Option(
            "--prefix-formulas",
            help="In a .csv, put an apostrophe before names that a spreadsheet would run as formulas (=, +, -, @).",
        ),
    ] = False,
    quality_maps: Annotated[Path | None, typer.Option(help="Folder for a quality map of every picture.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted job of the same output.")] = False,
    image_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the image paths of a manifest or a dataset start from; prepared for a manifest."
        ),
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Dataset configuration (for Hub datasets that have several).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Dataset split (for datasets that have several).")] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Dataset column to score. Default: the column that holds images.")
    ] = None,
    fetch_urls: Annotated[
        bool, typer.Option("--fetch-urls", help="Download images when the rows of a dataset hold http(s) addresses.")
    ] = False,
    fast_decode: Annotated[
        bool, typer.Option("--fast-decode", help="Decode large JPEG files at a fraction of their size.")
    ] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = 0,
    engine: Annotated[
        Engine, typer.Option(help="ray: score on the actors of a Ray cluster, or of a local one.")
    ] = "local",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Of Ray: how many; default: one for each GPU, else as CPUs allow.")
    ] = None,
) -> None:
    """Score pictures: how good do they look? Higher is better.

    Example: [bold]sind-hf score photos/ --output scores.csv[/bold]

    Under accelerate launch the processes share the pictures, and write one file.
    """
    terminal.quiet_libraries()
    keep_freed_memory()
    join_launch(device)
    ray = None
    if engine == "ray":
        maps = quality_maps is not None
        ray = RayEngine(model, device, dtype, fast_decode, views, batch_size, workers, maps, actors)
        device = "cpu"  # of the model here, which only says what it is
    scorer, processor = load_scorer(model, device=device, dtype=dtype, fast_decode=fast_decode)
    failed = scored = 0
    with terminal.progress("scoring") if is_main_process() else nullcontext() as update:
        for row in run_job(
            scorer,
            processor,
            paths,
            source_options=SourceOptions(image_root, subset, split, image_column, fetch_urls),
            views=views,
            batch_size=batch_size,
            workers=workers,
            output=output,
            quality_maps=quality_maps,
            resume=resume,
            prefix_formulas=prefix_formulas,
            progress=update,
            engine=ray,
        ):
            if row.score is None:
                failed += 1
                terminal.complain(str(row.error))
            else:
                scored += 1
                if output is None:
                    terminal.say(f"{row.score:10.4f}  {printable(row.image)}")
    failed, scored = in_all(failed, scored)
    if is_main_process():
        low_high = scorer.config.score_range
        scale = f"on the scale {low_high[0]:g} to {low_high[1]:g}" if low_high else "on no declared scale"
        where = f", written to {output}" if output else ""
        summary = f"{scored} pictures scored{where}; higher is better, {scale}"
        terminal.note(summary + (f"; {failed} left out" if failed else ""))
    in_all()  # a launcher ends the others when one process ends with an error
    if failed:
        raise typer.Exit(1 if scored or resume else 2)
