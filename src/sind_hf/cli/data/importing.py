"""`sind-hf data import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import FollowLinksOption, ManifestOutput, key_values


def import_scores(
    source: Annotated[
        str,
        typer.Argument(
            help="Table (CSV, TSV, .xlsx, JSON, JSON Lines, Parquet), folder with a table, saved dataset, or "
            "user/name of a dataset on the Hub.",
            show_default=False,
        ),
    ],
    output: ManifestOutput,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: the name of the file or folder.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder that the table's paths start from. Default: the table's folder.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=NAME",
            help="Column for one of image, score, scene, reference, distortion, domain_id. Repeat for several.",
        ),
    ] = None,
    score_range: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Lowest and highest possible score.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Low scores mean good images, as for DMOS.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Split to read, if the dataset has several.")] = None,
    images_to: Annotated[Path | None, typer.Option(help="Folder to copy the images to.")] = None,
    mean: Annotated[bool, typer.Option("--mean", help="Average the ratings of images with several rows.")] = False,
    follow_links: FollowLinksOption = False,
) -> None:
    """Make a manifest from your own scores.

    Example: [bold]sind-hf data import study/scores.csv --score-range 1 5 --output study.json[/bold]
    """
    from sind_hf.data.importing.importer import import_manifest
    from sind_hf.data.manifests.manifest import ScoreInfo

    terminal.quiet_libraries()
    result = import_manifest(
        source,
        dataset=dataset,
        image_root=image_root,
        columns=key_values("--column", column),
        score=ScoreInfo("", score_range, not lower_is_better) if score_range or lower_is_better else None,
        split=split,
        images_to=images_to,
        mean=mean,
        follow_links=follow_links,
    )
    result.manifest.save(output)
    for row in result.left_out:
        terminal.complain(str(row))
    terminal.say("columns: " + ", ".join(f"{kind} from {name!r}" for kind, name in result.columns.items()))
    for note in result.notes:
        terminal.say(f"note: {note}")
    terminal.say(
        f"{result.manifest.dataset}: {len(result.manifest):,} images, {len(result.left_out):,} rows left out; "
        f"image root {result.image_root} -> {output}"
    )
    if result.left_out:
        raise typer.Exit(1)
