"""`sind-hf push`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import RuntimeOption

CARDS = {
    "written": "the card is {folder}/README.md",
    "kept": "{folder}/README.md was pushed as it is",
    "remote": "the repository keeps its own README.md; the card written here is {folder}/README.md",
}


def push(
    model: Annotated[
        str,
        typer.Argument(
            help="Checkpoint folder or run folder; with --space also a model on the Hub.", show_default=False
        ),
    ],
    repo_id: Annotated[str, typer.Option(help="Repository on the Hub: user/name. It is created if needed.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to, created if needed. Default: main.")] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the weights, one of the Hub's names: mit, cc-by-4.0 …")
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(help="Image that the card shows with its score. Default: a photograph of a cat (CC0)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files, their sizes and the card, and send nothing.")
    ] = False,
    space: Annotated[
        bool, typer.Option("--space", help="Push the web demo of the model, as a Space, instead of the model.")
    ] = False,
    static: Annotated[
        bool, typer.Option("--static", help="With --space: push plain files that score in the visitor's browser.")
    ] = False,
    title: Annotated[str | None, typer.Option(help="With --space: title of the Space and its page.")] = None,
    runtime: RuntimeOption = None,
    card: Annotated[
        str | None, typer.Option(metavar="URL", help="With --static: the model card that the page links to.")
    ] = None,
) -> None:
    """Push a checkpoint to the Hub: weights, image processor, code, and a model card with the results of its run.

    With --space, push a web page that shows the model to everybody:
    [bold]sind-hf push runs/koniq --repo-id user/photo-quality --space[/bold]

    With --space --static the model runs in the visitor's browser, and images never leave it.

    Example: [bold]sind-hf push runs/koniq --repo-id user/sind-clip-vit-b16-koniq10k --license mit[/bold]
    """
    from huggingface_hub.utils import disable_progress_bars

    from sind_hf.app.static_site import push_site
    from sind_hf.experiments.figures import draw_scores
    from sind_hf.files import counted
    from sind_hf.hub.model_card import shown_size
    from sind_hf.hub.publish import EXAMPLE_IMAGE, preview_model, push_model, require_complete
    from sind_hf.hub.space import push_space

    terminal.quiet_libraries()
    if not terminal.messages.is_terminal:
        disable_progress_bars()
    if not static and (runtime is not None or card is not None):
        raise ValueError("--runtime and --card need --space --static: add those, or leave them out.")
    if space:
        for_models = {"--license": license, "--example": example, "--dry-run": dry_run}
        if given := [name for name, value in for_models.items() if value]:
            raise ValueError(f"{given[0]} is for pushing a model: leave it out, or leave --space out.")
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
        terminal.say(f"{counted(len(made.files), 'file')} pushed to {made.repo_id}: {made.commit_url}")
        terminal.say(f"the page will be at {made.url} when the Hub has built it")
        return
    if static:
        raise ValueError("--static needs --space: add it, or leave --static out.")
    if title is not None:
        raise ValueError("--title needs --space: add it, or leave --title out.")
    folder = Path(model)
    require_complete(folder)
    with tempfile.TemporaryDirectory() as drawn:
        figures: list[Path] = []
        try:
            figures = draw_scores(folder, Path(drawn))
        except ValueError as error:  # the card does not depend on figures
            terminal.note(f"the card gets no figure: {error}")
        shown = EXAMPLE_IMAGE if example is None else example
        if dry_run:
            preview = preview_model(folder, repo_id, license=license, figures=figures, example=shown)
            rows = [[name, shown_size(size)] for name, size in preview.sizes.items()]
            rows.append(["total", shown_size(sum(preview.sizes.values()))])
            terminal.show_table(f"A push to {repo_id} would upload:", ["file", "size"], rows)
            terminal.say()
            terminal.say("A new model card:" if preview.card_is_new else "The model card is the folder's README.md:")
            terminal.say()
            for line in preview.card.splitlines():
                terminal.say(line)
            terminal.say()
            terminal.say("Nothing was sent.")
            return
        done = push_model(
            folder,
            repo_id,
            private=private,
            revision=revision,
            message=message,
            license=license,
            figures=figures,
            example=shown,
        )
    terminal.say(f"{counted(len(done.files), 'file')} pushed to {done.repo_id}: {done.url}")
    terminal.say(CARDS[done.card].format(folder=folder))
