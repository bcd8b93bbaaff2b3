"""`sind-hf demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal


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
    rows = [
        [name, f"{result.within_scene[key]['srcc']:.3f}", f"{result.within_scene[key]['plcc']:.3f}"]
        for name, key in (
            ("before training (bundled checkpoint)", BEFORE),
            (f"trained with {PLAIN}, no alignment", PLAIN),
            (f"trained with {ALIGNED}, aligned within scenes", ALIGNED),
        )
    ]
    terminal.show_table(f"Unseen scenes: {', '.join(HELD_OUT)}", ["model", "SRCC", "PLCC"], rows)
    start, plain, aligned = (result.within_scene[key]["srcc"] for key in (BEFORE, PLAIN, ALIGNED))
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
