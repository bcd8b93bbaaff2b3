"""`sind-hf data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import ImageRootOption, ManifestArgument, WorkersOption
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared import prepare as preparation


def prepare(
    manifest: ManifestArgument,
    image_root: ImageRootOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the prepared data.")],
    view_size: Annotated[int, typer.Option(help="Side of the model's views.")] = 224,
    resize_backend: Annotated[Literal["torch", "pillow"], typer.Option(help="The image processor's.")] = "torch",
    verify: Annotated[bool, typer.Option("--verify", help="Compare what is there with its checksums first.")] = False,
    workers: WorkersOption = 0,
) -> None:
    """Decode and resize every picture once, so that training reads what it needs and no more.

    An interrupted run goes on where it was; after a change of pictures, it makes only those again.

    Example: [bold]sind-hf data prepare data_json/spaq/all.json --image-root data -o prepared/spaq --workers 8[/bold]
    """
    loaded = Manifest.load(manifest)
    with terminal.progress(f"preparing {loaded.dataset}") as update:
        result = preparation.prepare(
            loaded,
            image_root,
            output,
            view_size=view_size,
            resize_backend=resize_backend,
            workers=workers,
            verify=verify,
            announce=lambda use: terminal.note(str(use)),
            progress=update,
        )
    for image, reason in result.failures:
        terminal.complain(f"{image}: {reason}")
    if not result.done:
        raise ValueError(f"{loaded.dataset}: none of the {len(loaded):,} pictures could be prepared")
    terminal.say(
        f"{loaded.dataset}: {result.done:,} pictures prepared ({result.reused:,} were already), "
        f"{len(result.failures):,} left out; {result.bytes / 1e9:,.2f} GB in {output}"
    )
    if result.failures:
        raise typer.Exit(1)
