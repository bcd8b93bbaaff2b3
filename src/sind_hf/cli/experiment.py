"""`sind-hf experiment`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from accelerate import PartialState
from transformers import TrainerCallback

from sind_hf.cli import terminal
from sind_hf.experiments.config import RunConfig, load_config
from sind_hf.experiments.figures import draw_figures
from sind_hf.experiments.protocols import build_folds
from sind_hf.experiments.records import load_records
from sind_hf.experiments.report import summary_rows
from sind_hf.experiments.runner import run_experiment
from sind_hf.training.callbacks import TrainingProgress

SHORT = {"srcc": "SRCC", "plcc": "PLCC", "srcc_plcc": "(S+P)/2"}  # a row has to fit in 80 columns


def experiment(
    protocol: Annotated[
        Literal["leave-one-out", "cross-set", "random-split"],
        typer.Argument(help="leave-one-out, cross-set or random-split.", show_default=False),
    ],
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML with model, data, training, experiment.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace those of the file.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Refuse an output folder that holds something, instead of going on with it."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the folds and train nothing.")] = False,
) -> None:
    """Run a protocol of the paper: train and test on every fold, with tables and figures over all of them.

    Example: [bold]sind-hf experiment leave-one-out --config configs/leave_one_out_spaq.yaml[/bold]
    """
    terminal.quiet_libraries()
    run = load_config(config, overrides or [])
    if run.experiment.protocol not in (None, protocol):
        raise ValueError(f"{config} is for {run.experiment.protocol}, not for {protocol}: name that protocol instead.")
    if run.experiment.protocol is None:
        run = load_config(config, [*(overrides or []), f"experiment.protocol={protocol}"])
    if dry_run:
        show_folds(run)
    else:
        show_experiment(run, resume=not fresh)


def show_folds(config: RunConfig) -> None:
    """Print the folds of an experiment: what each trains and tests on, and where the sides came from."""
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
    """Run an experiment with its progress on the terminal, then print and draw its results."""
    config.training.disable_tqdm = True
    run_experiment(config, resume, watch=_watched)
    if not PartialState().is_main_process:
        return
    folder = Path(str(config.training.output_dir))
    records = load_records(folder)
    rows = [
        [
            row["test"],
            SHORT[row["metric"]],
            str(row["folds"]),
            f"{row['mean']:.3f}",
            f"{row['median']:.3f}",
            "" if row["std"] is None else f"{row['std']:.3f}",
            "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
            "" if row["published"] is None else f"{row['published']:.3f} {row['published_statistic']}",
        ]
        for row in summary_rows(records)
        if row["metric"] in SHORT
    ]
    columns = ["test set", "metric", "folds", "mean", "median", "std", "95 % interval", "paper"]
    terminal.show_table(config.experiment.name, columns, rows)
    try:
        draw_figures(records, folder)
    except ValueError as error:  # the tables do not depend on matplotlib
        terminal.note(str(error))
    terminal.say(f"report.md, report.csv, report.tex, report.json and the records of all folds are in {folder}")


@contextmanager
def _watched(title: str) -> Iterator[Sequence[TrainerCallback]]:
    if not PartialState().is_main_process:
        yield []
        return
    with terminal.stage(title) as update:
        yield [TrainingProgress(update)]
