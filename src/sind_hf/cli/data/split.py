"""`sind-hf data split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import ManifestArgument, SeedOption
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.splits.split_files import SplitKind, make_folds, write_folds


def split(
    manifest: ManifestArgument,
    protocol: Annotated[
        SplitKind, typer.Option(help="official: the authors' train and test lists, named with --lists.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Manifest folder; gets the published layout.")],
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            help="Published lists: files with train or test in their names (cross-set, official), or the folder of "
            "LIQE's numbered ones (random-split). May be given several times."
        ),
    ] = None,
    seed: SeedOption = 0,
    splits: Annotated[int, typer.Option(min=1, help="Number of splits (random-split) or folds (k-folds).")] = 10,
) -> None:
    """Split a manifest into train and test sides.

    Example: [bold]sind-hf data split data_json/spaq/all.json --protocol leave-one-out --output data_json[/bold]
    """
    folds = make_folds(Manifest.load(manifest), protocol, lists=lists or (), seed=seed, splits=splits)
    written = write_folds(folds, output, protocol)
    rows = [
        [fold.name, *(f"{0 if side is None else len(side):,}" for side in (fold.train, fold.validation, fold.test))]
        + [f"{len(fold.unused):,}"]
        for fold in folds
    ]
    terminal.show_table("", ["fold", "train", "validation", "test", "unused"], rows)
    terminal.say(f"{len(written)} manifests written to {output}")
