"""`sind-hf train` and `sind-hf demo`: trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sind_hf.cli import terminal

METRICS = ("srcc", "plcc", "krcc", "rmse", "within_scene_srcc", "within_scene_plcc")


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="Configuration (YAML with the groups model, data, training), and values that replace those in it.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration, if it is not the first argument.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in the run folder, if there is one.")
    ] = False,
) -> None:
    """Train a model by a configuration, test it, and save it with its record and model card.

    Without --resume, a run folder that already contains a run is refused.

    Example: [bold]sind-hf train configs/demo.yaml max_steps=300 loss_type=plcc[/bold]
    """
    from sind_hf.distributed import keep_freed_memory
    from sind_hf.experiments.config import config_from_arguments
    from sind_hf.experiments.records import missing_within_scenes
    from sind_hf.experiments.runner import run_training
    from sind_hf.training.callbacks import TrainingProgress

    terminal.quiet_libraries()
    keep_freed_memory()
    run = config_from_arguments(arguments or [], config, ("--config", "--resume", "--help"))
    run.training.disable_tqdm = True
    with terminal.progress("training") as update:
        record = run_training(run, resume=resume, callbacks=[TrainingProgress(update)])
    if run.training.process_index != 0:
        return
    before = record.get("before_training", {})
    rows = []
    for dataset, values in record["metrics"].items():
        rows.append([dataset, *_cells(values)])
        if dataset in before:
            rows.append(["  before training", *_cells(before[dataset])])
    if rows:
        title = f"{record['name']}: {record['steps']} steps, {record['seconds']:.0f} s"
        terminal.show_table(title, ["", *METRICS], rows)
    for dataset, old in before.items():
        first, last = old.get("srcc"), record["metrics"].get(dataset, {}).get("srcc")
        if first is not None and last is not None and last < first:
            terminal.note(
                f"{dataset}: the SRCC fell from {first:.3f} to {last:.3f}; try a lower learning_rate or fewer steps "
                "(max_steps)"
            )
    for dataset in record["metrics"]:
        if reason := missing_within_scenes(record, dataset):
            terminal.note(f"{dataset}: no figures within scenes, because {reason}")
    terminal.say(f"checkpoint, README.md, config.yaml and results.json are in {run.training.output_dir}")


def _cells(values: Mapping[str, Any]) -> list[str]:
    return [_cell(values[name]) if name in values else "" for name in METRICS]


def _cell(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.")] = Path("demo_output"),
) -> None:
    """Fine-tune the bundled checkpoint on a small synthetic set, with and without alignment; test on unseen scenes.

    Example: [bold]sind-hf demo --output demo_output[/bold]
    """
    from sind_hf.distributed import keep_freed_memory
    from sind_hf.experiments.demo import ALIGNED, BEFORE, HELD_OUT, PLAIN, run_demo
    from sind_hf.training.callbacks import TrainingProgress

    keep_freed_memory()
    terminal.quiet_libraries()
    terminal.say("Photographs, graded distortions, made-up scores: this shows how SIND works, not how good it is.")
    result = run_demo(output, terminal.stage, TrainingProgress)
    terminal.say()
    names = {
        BEFORE: "before training (bundled checkpoint)",
        PLAIN: f"trained with {PLAIN}, no alignment",
        ALIGNED: f"trained with {ALIGNED}, aligned within scenes",
    }
    within = result.within_scene
    rows = [[name, f"{within[key]['srcc']:.3f}", f"{within[key]['plcc']:.3f}"] for key, name in names.items()]
    terminal.show_table(f"Unseen scenes: {', '.join(HELD_OUT)}", ["model", "SRCC", "PLCC"], rows)
    start, plain, aligned = (within[key]["srcc"] for key in names)
    terminal.say()
    terminal.say(
        f"The start brings an SRCC of {start:.2f}. Training without alignment changes it by {plain - start:+.2f}, "
        f"and alignment by another {aligned - plain:+.2f}."
    )
    terminal.say(
        "Both correlations compare predicted with true scores within each unseen scene and are averaged over the "
        "scenes: 1 is the right order (SRCC) or a straight line (PLCC), 0 is chance."
    )
    terminal.say(
        "The scores are synthetic, and those of each scene have their own scale and shift, as human opinions do. "
        f"{result.images} images, {result.held_out} of them held out; {result.seconds:.0f} s in total."
    )
    terminal.say()
    for path, what in (
        (result.scatter, "predicted against true scores, colored by scene"),
        (result.sheet, "quality maps of a clean, a blurred and a noisy image"),
        (result.scores, "scores of the unseen images"),
        (result.model_dir, "the checkpoint; score your own images with"),
    ):
        terminal.say(f"  {path}  {what}")
    terminal.say(f"    sind-hf score IMAGE_OR_FOLDER --model {result.model_dir}")
