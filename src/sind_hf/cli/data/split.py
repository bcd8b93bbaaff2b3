"""`sind-hf data split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import ManifestArgument, SeedOption
from sind_hf.data.manifests.catalog import CATALOG

SplitKind = Literal["leave-one-out", "cross-set", "random-split", "k-folds", "official"]


def split(
    manifest: ManifestArgument,
    protocol: Annotated[
        SplitKind,
        typer.Option(help="Protocol of the split. official: the authors' train and test lists, named with --lists."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Manifest folder. The folds go into a folder for the protocol.")
    ],
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            help="Published lists: files with train or test in their names (cross-set, official), or the folder of "
            "LIQE's numbered lists (random-split). Repeat for several."
        ),
    ] = None,
    seed: SeedOption = 0,
    splits: Annotated[int, typer.Option(min=1, help="Number of splits (random-split) or folds (k-folds).")] = 10,
    mix_scenes: Annotated[
        bool,
        typer.Option(
            "--mix-scenes",
            help="Draw images one by one, so that a scene may be on both sides. Default: keep each scene on one side, "
            "except for the published datasets, whose protocols mix scenes.",
        ),
    ] = False,
) -> None:
    """Split a manifest into train and test sides.

    Example: [bold]sind-hf data split data_json/spaq/all.json --protocol leave-one-out --output data_json[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.splits.library import write_folds
    from sind_hf.data.splits.published_lists import make_folds
    from sind_hf.data.splits.splits import shared_scenes

    loaded = Manifest.load(manifest)
    keep_scenes = not mix_scenes and loaded.dataset not in CATALOG
    folds = make_folds(loaded, protocol, lists=lists or (), seed=seed, splits=splits, keep_scenes=keep_scenes)
    written = write_folds(folds, output, protocol)
    rows = []
    for fold in folds:
        sizes = [0 if side is None else len(side) for side in (fold.train, fold.validation, fold.test)]
        rows.append([fold.name, *(f"{count:,}" for count in (*sizes, len(fold.unused)))])
    terminal.show_table("", ["fold", "train", "validation", "test", "unused"], rows)
    shared, tested = shared_scenes(folds)
    if tested:
        terminal.say(f"{shared} of {tested} test scenes also in train")
    else:
        terminal.say("the images have no scenes; `sind-hf data label-scenes` gives them some")
    terminal.say(f"{len(written)} manifests written to {output}")
