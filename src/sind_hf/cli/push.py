"""`sind-hf push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils import disable_progress_bars

from sind_hf.app.static_site import push_site
from sind_hf.cli import terminal
from sind_hf.cli.options import CardOption, RuntimeOption
from sind_hf.experiments.figures import draw_scores
from sind_hf.hub.publish import push_model, require_whole
from sind_hf.hub.space import push_space

CARDS = {
    "written": "the card is {folder}/README.md",
    "kept": "{folder}/README.md was there and was pushed as it is",
    "theirs": "the repository's own README.md stays; the card written here is {folder}/README.md",
}


def push(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a checkpoint or of a run; with --space also a model on the Hub.", show_default=False
        ),
    ],
    repo_id: Annotated[str, typer.Option(help="Repository of the Hub: user/name; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to, made if need be; default: main.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the weights, one of the Hub's names: mit, cc-by-4.0 …")
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Push the web demo of the model, as a Space, in the place of the model.")
    ] = False,
    static: Annotated[
        bool,
        typer.Option("--static", help="With --space: push plain files that score in the visitor's browser."),
    ] = False,
    title: Annotated[str | None, typer.Option(help="Title of the Space and its page.")] = None,
    runtime: RuntimeOption = None,
    card: CardOption = None,
) -> None:
    """Push a checkpoint to the Hub: weights, image processor, code, and a model card with the results of its run.

    With --space: a Space, a page for everybody that shows the model in the browser:
    [bold]sind-hf push runs/koniq --repo-id user/photo-quality --space[/bold]

    With --space --static the model runs in the visitor's browser, and images never leave it.

    Example: [bold]sind-hf push runs/koniq --repo-id user/sind-clip-vit-b16-koniq10k --license mit[/bold]
    """
    terminal.quiet_libraries()
    if not terminal.messages.is_terminal:
        disable_progress_bars()
    if not static and (runtime is not None or card is not None):
        raise ValueError("--runtime and --card are for a page of plain files: give --space --static with them.")
    if space:
        if licence:
            raise ValueError("--license is of a model's card, which --space does not push: push the model with it.")
        if static:
            made = push_site(
                model,
                repo_id,
                runtime=runtime,
                title=title,
                card=card,
                private=private,
                revision=revision,
                message=message,
            )
        else:
            made = push_space(model, repo_id, title=title, private=private, revision=revision, message=message)
        terminal.say(f"{len(made.files)} files pushed to {made.repo_id}: {made.commit_url}")
        terminal.say(f"the page will be at {made.url} when the Hub has built it")
        return
    if static:
        raise ValueError("--static is of a Space: give --space with it, or leave it out.")
    if title is not None:
        raise ValueError("--title is of a Space: give --space with it, or leave it out.")
    model_dir = Path(model)
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
