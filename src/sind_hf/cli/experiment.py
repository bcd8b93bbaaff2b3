"""`sind-hf experiment`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sind_hf.cli import terminal

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from sind_hf.experiments.config import RunConfig

SHORT = {"srcc": "SRCC", "plcc": "PLCC", "srcc_plcc": "(S+P)/2"}  # a row has to fit in 80 columns


def experiment(
    protocol: Annotated[
        Literal["leave-one-out", "cross-set", "random-split"],
        typer.Argument(help="Protocol: leave-one-out, cross-set or random-split.", show_default=False),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="Configuration (YAML with the groups model, data, training, experiment), and values that replace "
            "those in it.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration, if it is not an argument.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Refuse an output folder that is not empty, instead of resuming the experiment."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the folds without training.")] = False,
) -> None:
    """Run a protocol of the paper: train and test on every fold, with tables and figures over all of them.

    Example: [bold]sind-hf experiment leave-one-out configs/leave_one_out_spaq.yaml[/bold]
    """
    from sind_hf.distributed import keep_freed_memory
    from sind_hf.experiments.config import config_from_arguments

    keep_freed_memory()
    terminal.quiet_libraries()
    words = arguments or []
    run = config_from_arguments(words, config, ("--config", "--fresh", "--dry-run", "--help"))
    if run.experiment.protocol not in (None, protocol):
        raise ValueError(
            f"the configuration is for the protocol {run.experiment.protocol}, not for {protocol}: write "
            f"`sind-hf experiment {run.experiment.protocol}`."
        )
    if run.experiment.protocol is None:
        run = config_from_arguments([*words, f"experiment.protocol={protocol}"], config)
    if dry_run:
        show_folds(run)
    else:
        show_experiment(run, resume=not fresh)


def show_folds(config: RunConfig) -> None:
    """Print the folds of an experiment: the train and test sides of each, and their origins."""
    from sind_hf.experiments.protocols import build_folds

    folds = build_folds(config.data, config.experiment)
    rows = []
    for fold in folds:
        train = ", ".join(f"{manifest.dataset} {len(manifest)}" for manifest in fold.train)
        tests = ", ".join(f"{name} {len(manifest)}" for name, manifest in fold.tests.items())
        rows.append([fold.name, train, tests])
    terminal.show_table(config.experiment.name, ["fold", "train images", "test images"], rows)
    for dataset, origin in folds[0].origins.items():
        terminal.say(f"{dataset}: {origin}")


def show_experiment(config: RunConfig, *, resume: bool = True) -> None:
    """Run an experiment with progress on the terminal, then print and draw its results."""
    from sind_hf.distributed import is_main_process
    from sind_hf.experiments.figures import draw_figures
    from sind_hf.experiments.records import load_records
    from sind_hf.experiments.report import statistics_cells, summary_rows
    from sind_hf.experiments.runner import run_experiment

    config.training.disable_tqdm = True
    run_experiment(config, resume, watch=_watched)
    if not is_main_process():
        return
    folder = Path(str(config.training.output_dir))
    records = load_records(folder)
    rows = [
        [
            row["test"],
            SHORT[row["metric"]],
            *statistics_cells(row),
            "" if row["published"] is None else f"{row['published']:.3f} {row['published_statistic']}",
        ]
        for row in summary_rows(records)
        if row["metric"] in SHORT
    ]
    columns = ["test set", "metric", "folds", "mean", "median", "std", "95 % interval", "paper"]
    terminal.show_table(config.experiment.name, columns, rows)
    try:
        draw_figures(records, folder)
    except ValueError as error:  # without matplotlib there are still the tables
        terminal.note(str(error))
    terminal.say(f"report.md, report.csv, report.tex, report.json and the records of all folds are in {folder}")


@contextmanager
def _watched(title: str) -> Iterator[Sequence[TrainerCallback]]:
    from sind_hf.distributed import is_main_process
    from sind_hf.training.callbacks import TrainingProgress

    if not is_main_process():
        yield []
        return
    with terminal.stage(title) as update:
        yield [TrainingProgress(update)]
