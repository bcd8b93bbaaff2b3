"""`sind-hf train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.experiments.config import load_config
from sind_hf.experiments.runner import run_training
from sind_hf.training.callbacks import TrainingProgress


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML with the groups model, data, training.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace those of the file.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint of the output; without it, none may be there."),
    ] = False,
) -> None:
    """Train a model as a configuration says, test it, and save it with its record.

    Example: [bold]sind-hf train --config configs/demo.yaml max_steps=300 loss_type=plcc[/bold]
    """
    terminal.quiet_libraries()
    run = load_config(config, overrides or [])
    run.training.disable_tqdm = True
    with terminal.progress("training") as update:
        record = run_training(run, resume=resume, callbacks=[TrainingProgress(update)])
    if run.training.process_index != 0:
        return
    names = ["srcc", "plcc", "krcc", "rmse", "within_scene_srcc", "within_scene_plcc"]
    rows = [
        [dataset, *(_cell(values[name]) if name in values else "" for name in names)]
        for dataset, values in record["metrics"].items()
    ]
    if rows:
        terminal.show_table(
            f"{record['name']}: {record['steps']} steps, {record['seconds']:.0f} s", ["", *names], rows
        )
    if run.training.score_range is None:
        terminal.note("scores are not calibrated: the training sets declare no range that they share (score_range)")
    terminal.say(f"checkpoint, config.yaml and results.json are in {run.training.output_dir}")


def _cell(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
