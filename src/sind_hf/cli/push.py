"""`sind-hf push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils import disable_progress_bars

from sind_hf.cli import terminal
from sind_hf.experiments.figures import draw_scores
from sind_hf.hub.publish import push_model, require_whole

CARDS = {
    "written": "the card is {folder}/README.md",
    "kept": "{folder}/README.md was there and was pushed as it is",
    "theirs": "the repository's own README.md stays; the card written here is {folder}/README.md",
}


def push(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of a run.", show_default=False)],
    repo_id: Annotated[str, typer.Option(help="Repository of the Hub: user/name; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to, made if need be; default: main.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the weights, one of the Hub's names: mit, cc-by-4.0 …")
    ] = None,
) -> None:
    """Push a checkpoint to the Hub: weights, image processor, code, and a model card with the results of its run.

    Example: [bold]sind-hf push runs/koniq --repo-id user/sind-clip-vit-b16-koniq10k --license mit[/bold]
    """
    terminal.quiet_libraries()
    if not terminal.messages.is_terminal:
        disable_progress_bars()
    require_whole(model_dir)
    figures: list[Path] = []
    try:
        figures = draw_scores(model_dir)
    except ValueError as error:  # a card without figures is a card
        terminal.note(f"the card gets no figure: {error}")
    done = push_model(
        model_dir,
        repo_id,
        private=private,
        revision=revision,
        message=message,
        licence=licence,
        figures=figures,
    )
    terminal.say(f"{len(done.files)} files pushed to {done.repo_id}: {done.url}")
    terminal.say(CARDS[done.card].format(folder=model_dir))
