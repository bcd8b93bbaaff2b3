"""`sind-hf data build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import ClipOption, FollowLinksOption, SeedOption, key_values
from sind_hf.data.manifests.catalog import CATALOG

if TYPE_CHECKING:
    from sind_hf.data.readers import BuildResult


def build(
    name: Annotated[
        str,
        typer.Argument(help=f"One of {', '.join([*CATALOG, 'folder'])}; all: those in ROOT.", show_default=False),
    ],
    root: Annotated[Path, typer.Option(help="Folder of the dataset, or the folder that holds it.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Manifest to write (.json), or a folder for <name>/all.json.")
    ] = Path("data_json"),
    verify: Annotated[bool, typer.Option("--verify", help="Decode every image.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the reader, for example score=quality for para."),
    ] = None,
    clip: ClipOption = None,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
) -> None:
    """Write the manifest of a dataset that you have downloaded.

    Example: [bold]sind-hf data build koniq10k --root ~/datasets --output data_json[/bold]
    """
    from sind_hf.data.readers import DatasetNotFoundError
    from sind_hf.data.readers import build as build_manifest
    from sind_hf.data.scenes.labeling import scene_picker

    terminal.quiet_libraries()
    if name == "all" and output.suffix == ".json":
        raise ValueError("--output must be a folder when all datasets are built")
    options = key_values("--option", option)
    picker = scene_picker(clip) if clip is not None else None
    written, absent, failed = 0, [], 0
    for dataset in CATALOG if name == "all" else [name]:
        try:
            with terminal.progress(dataset) as update:
                result = build_manifest(
                    dataset,
                    root,
                    verify=verify,
                    scene_labels=picker,
                    seed=seed,
                    progress=update,
                    follow_links=follow_links,
                    **options,
                )
            path = output if output.suffix == ".json" else output / result.manifest.dataset / "all.json"
            result.manifest.save(path)
        except DatasetNotFoundError:
            if name != "all":
                raise
            absent.append(dataset)
        except (ValueError, OSError, ImportError) as error:
            if name != "all":
                raise
            terminal.complain(terminal.in_one_line(error))
            failed += 1
        else:
            _report(result, path)
            written += 1
            failed += not result.complete
    if absent:
        terminal.note(f"not in {root}: {', '.join(absent)}")
    if not written:
        raise ValueError(f"{root}: no dataset could be built; pass the folder that holds the downloads")
    if failed:
        raise typer.Exit(1)


def _report(result: BuildResult, path: Path) -> None:
    for image in result.missing:
        terminal.complain(f"{image}: missing")
    for place, reason in result.unreadable:
        terminal.complain(f"{place}: {reason}")
    manifest = result.manifest
    for note in result.notes:
        terminal.say(f"{manifest.dataset}: {note}")
    left_out = len(result.missing) + len(result.unreadable)
    counts = f"{len(manifest):,} images, {left_out:,} left out"
    terminal.say(f"{manifest.dataset}: {counts}; image root {result.image_root} -> {path}")
