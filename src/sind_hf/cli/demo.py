"""`sind-hf demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo_output"
    ),
) -> None:
    """Make a small graded set, train on it with and without alignment, test on unseen scenes, score and draw.

    Example: [bold]sind-hf demo --output demo_output[/bold]
    """
    from sind_hf.experiments.demo import HELD_OUT, run_demo
    from sind_hf.training.callbacks import TrainingProgress

    terminal.quiet_libraries()
    terminal.say("Photographs, graded distortions, made-up scores: this shows how SIND works, not how good it is.")
    result = run_demo(output, terminal.stage, TrainingProgress)
    terminal.say()
    rows = [
        [name, f"{result.within_scene[key]['srcc']:.3f}", f"{result.within_scene[key]['plcc']:.3f}"]
        for name, key in (
            ("untrained", "untrained"),
            ("l1 (no alignment)", "l1"),
            ("scale_shift (SIND)", "scale_shift"),
        )
    ]
    terminal.show_table(f"Unseen scenes: {', '.join(HELD_OUT)}", ["loss", "SRCC", "PLCC"], rows)
    terminal.say(
        "\nBoth correlations compare predicted scores with the set's within each unseen scene, then are averaged:\n"
        "1 is the right order (SRCC) or a straight line (PLCC), 0 is chance. The scores are synthetic: those of each\n"
        "scene have a scale and shift of their own, as those of people do. "
        f"{result.pictures} pictures, {result.held_out} of them held out; {result.seconds:.0f} s in all.\n"
    )
    for path, what in (
        (result.scatter, "predicted against true scores, coloured by scene"),
        (result.sheet, "quality maps of a clean, a blurred and a noisy picture"),
        (result.scores, "scores of the unseen pictures, nine views each"),
        (result.model_dir, "the checkpoint; score your own with"),
    ):
        terminal.say(f"  {path}  {what}")
    terminal.say(f"    sind-hf score PICTURE_OR_FOLDER --model {result.model_dir}")
