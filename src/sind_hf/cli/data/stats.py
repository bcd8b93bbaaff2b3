"""`sind-hf data stats`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import ManifestArgument
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.statistics import manifest_statistics, plot_scene_distributions, render_statistics


def stats(
    manifest: ManifestArgument,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of every scene's score distribution before and after alignment.")
    ] = None,
) -> None:
    """Show images and scores per scene, compared with the catalog.

    Example: [bold]sind-hf data stats data_json/spaq/all.json --plot spaq.png[/bold]
    """
    loaded = Manifest.load(manifest)
    terminal.show(render_statistics(manifest_statistics(loaded)))
    if plot is not None:
        terminal.say(f"figure written to {plot_scene_distributions(loaded, plot)}")
