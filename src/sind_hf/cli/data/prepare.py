"""`sind-hf data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import FollowLinksOption, ImageRootOption, ManifestArgument, WorkersOption


def prepare(
    manifest: ManifestArgument,
    image_root: ImageRootOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the prepared data.")],
    view_size: Annotated[int, typer.Option(help="Side of the model's views in pixels.")] = 224,
    resize_backend: Annotated[
        Literal["torch", "pillow"], typer.Option(help="Resize backend of the image processor.")
    ] = "torch",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the existing files by their checksums first.")
    ] = False,
    workers: WorkersOption = 0,
    follow_links: FollowLinksOption = False,
) -> None:
    """Decode and resize every image once, so that training starts from small arrays.

    A new run continues an interrupted one, and prepares only the images that have changed.

    Example: [bold]sind-hf data prepare data_json/spaq/all.json --image-root data -o prepared/spaq --workers 8[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.prepared import prepare as preparation

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
            follow_links=follow_links,
            announce=lambda use: terminal.note(str(use)),
            progress=update,
        )
    for image, reason in result.failures:
        terminal.complain(f"{image}: {reason}")
    if not result.done:
        raise ValueError(f"{loaded.dataset}: none of the {len(loaded):,} images could be prepared")
    terminal.say(
        f"{loaded.dataset}: {result.done:,} images prepared ({result.reused:,} by an earlier run), "
        f"{len(result.failures):,} left out; {result.bytes / 1e9:,.2f} GB in {output}"
    )
    if result.failures:
        raise typer.Exit(1)
