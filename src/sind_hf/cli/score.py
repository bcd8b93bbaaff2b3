"""`sind-hf score`."""

from __future__ import annotations

import os
import time
from array import array
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sind_hf import __version__
from sind_hf.bundled import bundled_checkpoint, percentile
from sind_hf.cli import terminal
from sind_hf.cli.options import BUNDLED, BatchSizeOption, DeviceOption, DtypeOption, ModelOption, ViewsOption

if TYPE_CHECKING:
    from sind_hf.scoring.job import JobResults
    from sind_hf.scoring.scorer import ScoredImage

FAST_DECODE: dict[str, bool | Literal["auto"]] = {"auto": "auto", "on": True, "off": False}


def score(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, patterns such as 'photos/*.jpg', .txt lists, .json manifests, prepared folders, "
            "and datasets: .parquet, hf://datasets/USER/NAME.",
            show_default=False,
        ),
    ],
    model: ModelOption = BUNDLED,
    views: ViewsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the scores to this file (.csv, .jsonl or .parquet).")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Print and write only images that score at least this, and count those below.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Print and write only this many images, best first.")] = None,
    sort: Annotated[bool, typer.Option("--sort", help="Print and write the best images first.")] = False,
    copy_good: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy the images that --min-score and --top keep to this folder. No file is ever overwritten.",
        ),
    ] = None,
    move_bad: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Move the images that --min-score and --top drop to this folder. No file is ever overwritten.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a web page (.html) with the worst and the best images and a histogram."
        ),
    ] = None,
    prefix_formulas: Annotated[
        bool,
        typer.Option(
            "--prefix-formulas",
            help="In a .csv, put an apostrophe before names that a spreadsheet would run as formulas (=, +, -, @).",
        ),
    ] = False,
    quality_maps: Annotated[Path | None, typer.Option(help="Folder for a quality map of every image.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted job of the same output. Takes no value.")
    ] = False,
    image_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the image paths of a manifest or a dataset start from; prepared for a manifest."
        ),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read the links of a manifest that lead out of the image root, too.")
    ] = False,
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
        Literal["auto", "on", "off"] | None,
        typer.Option(
            help="Decode large JPEG files at a fraction of their size; auto: from 4 megapixels on. The option alone "
            "means on. Default: as the checkpoint says, else off.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    batch_size: BatchSizeOption = 16,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that load images ahead of the model; 0: load in this one. Default: chosen from the number "
            "of cores.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: score on the actors of a Ray cluster, or of a local one.")
    ] = "local",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Number of Ray actors. Default: one for each GPU, else as CPUs allow.")
    ] = None,
) -> None:
    """Score images: how good do they look? Higher is better.

    Example: [bold]sind-hf score photos/ --output scores.csv[/bold]

    Example: [bold]sind-hf score photos/ --min-score 3 --copy-good good/ --report report.html[/bold]

    Under accelerate launch the processes share the images, and write one file.
    """
    if (copy_good or move_bad) and min_score is None and top is None:
        raise ValueError("--copy-good and --move-bad need --min-score or --top, which say what is good.")
    for path in paths:
        if path.lower() in ("true", "false") and not os.path.exists(path):
            raise ValueError(f"{path}: a flag such as --resume takes no value: leave {path!r} out.")
    # torch's threads wait without spinning, or they would take the cores from the processes that load images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from sind_hf.checkpoints import load_scorer
    from sind_hf.configuration_sind import resolve_checkpoint
    from sind_hf.distributed import in_all, is_main_process, join_launch, keep_freed_memory
    from sind_hf.files import counted, sole_use
    from sind_hf.scoring.job import run_job
    from sind_hf.scoring.ray_engine import RayEngine
    from sind_hf.scoring.report import ReportSettings, extremes, summary_lines, write_report
    from sind_hf.scoring.selection import Selection
    from sind_hf.scoring.sources import SourceOptions, unread_format

    terminal.quiet_libraries()
    model = resolve_checkpoint(model)
    selection = Selection(min_score, top, sort)
    need_files = copy_good is not None or move_bad is not None
    keep_freed_memory()
    join_launch(device)
    fast = None if fast_decode is None else FAST_DECODE[fast_decode]
    ray = None
    if engine == "ray":
        maps = quality_maps is not None
        ray = RayEngine(model, device, dtype, fast, views, batch_size, workers or 0, maps, actors)
        device = "cpu"  # the model of this process only describes itself
    scorer, processor = load_scorer(model, device=device, dtype=dtype, fast_decode=fast)
    low_high = scorer.config.score_range
    scores, unread = array("d"), Counter[str]()
    failed = scored = misplaced = 0

    def finish(results: JobResults) -> None:
        nonlocal scores, misplaced
        scores = array("d", (row.score for row in results.rows if row.score is not None))
        chosen = selection.choose(results.rows)
        if output is None and chooses:
            for row in chosen:
                _print(row)
        if report is not None:
            shown = {row.image for rows in extremes(results.rows) for row in rows}
            name = f"bundled with sind-hf {__version__}" if model == bundled_checkpoint() else model
            settings = ReportSettings(name, low_high, min_score)
            write_report(report, results.rows, results.find(shown), scorer, processor, settings, views)
            terminal.note(f"report written to {report}")
        misplaced = _place(results, chosen, copy_good, move_bad)

    # Lines are printed at once unless some are chosen, and rows are collected only if they are needed at the end.
    chooses = selection.drops or sort
    waits = chooses or report is not None or resume
    started = ended = time.monotonic()
    with ExitStack() as stack:
        if report is not None and is_main_process():
            stack.enter_context(sole_use(report))  # a report that cannot be written is refused before the work
        update = stack.enter_context(terminal.progress("scoring", "images") if is_main_process() else nullcontext())
        for row in run_job(
            scorer,
            processor,
            paths,
            source_options=SourceOptions(
                image_root, subset, split, image_column, fetch_urls, follow_links, need_files
            ),
            views=views,
            batch_size=batch_size,
            workers=workers,
            output=output,
            quality_maps=quality_maps,
            resume=resume,
            prefix_formulas=prefix_formulas,
            progress=update,
            engine=ray,
            selection=selection if waits else None,
            finished=finish if waits else None,
        ):
            if row.score is None:
                failed += 1
                terminal.complain(str(row.error))
                if kind := unread_format(row.image):
                    unread[kind] += 1
            else:
                scored += 1
                scores.append(row.score)
                if output is None and not chooses:
                    _print(row)
            ended = time.monotonic()
    seconds = ended - started
    failed, scored = in_all(failed, scored)
    if is_main_process():
        scale = f"on the scale {low_high[0]:g} to {low_high[1]:g}" if low_high else "on no declared scale"
        where = f", written to {output}" if output else ""
        rate = f"; {(scored + failed) / max(seconds, 1e-9):.1f} images/s"
        left_out = f"; {failed} left out" if failed else ""
        earlier = f" and {len(scores) - scored:,} before the interruption" if len(scores) > scored else ""
        terminal.note(f"{counted(scored, 'image')} scored{earlier}{where}; higher is better, {scale}{left_out}{rate}")
        if unread:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in unread.most_common())
            terminal.note(f"formats that are not read: {kinds}")
        if scores and (waits or len(scores) == scored):  # a process of a launch may know its own share alone
            for line in summary_lines(scores, min_score, percentile if model == bundled_checkpoint() else None):
                terminal.note(line)
    (misplaced,) = in_all(misplaced)  # a launcher ends the others when one process ends with an error
    if failed or misplaced:
        raise typer.Exit(1 if scored or resume else 2)


def _print(row: ScoredImage) -> None:
    if row.score is not None:
        terminal.say(f"{row.score:10.4f}  {terminal.one_line(row.image, terminal.LONGEST_NAME)}")


def _place(results: JobResults, chosen: list[ScoredImage], copy_good: Path | None, move_bad: Path | None) -> int:
    """Copy the good files and move the bad ones; return how many could not be put where they belong."""
    from sind_hf.files import counted
    from sind_hf.scoring.selection import common_folder, place_files

    if copy_good is None and move_bad is None:
        return 0
    good = [row.image for row in chosen]
    kept = set(good)
    bad = [row.image for row in results.rows if row.score is not None and row.image not in kept]
    base = common_folder(row.image for row in results.rows)
    misplaced = 0
    for images, folder, done in ((good, copy_good, "copied"), (bad, move_bad, "moved")):
        if folder is None:
            continue
        problems = [line for line in place_files(images, folder, base, move=done == "moved") if line is not None]
        for line in problems:
            terminal.complain(line)
        terminal.note(f"{counted(len(images) - len(problems), 'image')} {done} to {folder}")
        misplaced += len(problems)
    return misplaced
