"""`sind-hf data validate` and `stats`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import FollowLinksOption, ManifestArgument


def validate(
    manifest: ManifestArgument,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder that the image paths start from. Default: check only the file.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Decode every image.")] = False,
    follow_links: FollowLinksOption = False,
) -> None:
    """Check a manifest and its images, and compare it with the catalog.

    Example: [bold]sind-hf data validate data_json/koniq10k/all.json --image-root ~/datasets --verify[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.statistics import compare_with_catalog

    if verify and image_root is None:
        raise ValueError("--verify decodes the images; name their folder with --image-root")
    loaded = Manifest.load(manifest)
    with terminal.progress(loaded.dataset) as update:
        problems = loaded.validate(image_root, verify, update, follow_links)
    bad_entries = {problem.entry for problem in problems}
    if None in bad_entries or len(bad_entries) == len(loaded):
        raise ValueError(f"{manifest}: no image can be used: {problems[0]}")
    for problem in problems:
        terminal.complain(str(problem))
    checks = compare_with_catalog(loaded)
    for check in checks:
        terminal.say(f"{check.level}: {check.what}")
    checked = "decoded" if verify else "found" if image_root is not None else "well formed"
    terminal.say(f"{loaded.dataset}: {len(loaded) - len(bad_entries):,} of {len(loaded):,} images {checked}")
    if problems or any(check.level == "problem" for check in checks):
        raise typer.Exit(1)


def stats(
    manifest: ManifestArgument,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the score distributions of the scenes, before and after alignment, as this PNG."),
    ] = None,
) -> None:
    """Show the number of images and the scores of every scene.

    Example: [bold]sind-hf data stats data_json/spaq/all.json --plot spaq.png[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.statistics import manifest_statistics, plot_scene_distributions, render_statistics

    loaded = Manifest.load(manifest)
    terminal.show(render_statistics(manifest_statistics(loaded)))
    if plot is not None:
        terminal.say(f"figure written to {plot_scene_distributions(loaded, plot)}")
