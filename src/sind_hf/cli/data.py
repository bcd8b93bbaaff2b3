"""`sind-hf data`: commands that make, check and change manifests, and prepare images for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import (
    BatchSizeOption,
    ClipOption,
    DeviceOption,
    FollowLinksOption,
    ImageRootOption,
    ManifestArgument,
    ManifestOutput,
    SeedOption,
    VerifyOption,
    WorkersOption,
    key_values,
)
from sind_hf.data.manifests.catalog import CATALOG

if TYPE_CHECKING:
    from sind_hf.data.readers import BuildResult


def build(
    name: Annotated[
        str, typer.Argument(help=f"One of {', '.join([*CATALOG, 'folder'])}; all: those in ROOT.", show_default=False)
    ],
    root: Annotated[Path, typer.Option(help="Folder of the dataset, or the folder that holds it.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Manifest to write (.json), or a folder for <name>/all.json.")
    ] = Path("data_json"),
    verify: VerifyOption = False,
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
    from sind_hf.files import counted

    for image in result.missing:
        terminal.complain(f"{image}: missing")
    for place, reason in result.unreadable:
        terminal.complain(f"{place}: {reason}")
    manifest = result.manifest
    for note in result.notes:
        terminal.say(f"{manifest.dataset}: {note}")
    left_out = len(result.missing) + len(result.unreadable)
    counts = f"{counted(len(manifest), 'image')}, {left_out:,} left out"
    terminal.say(f"{manifest.dataset}: {counts}; image root {result.image_root} -> {path}")


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
    from sind_hf.files import counted

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
        f"{result.manifest.dataset}: {counted(len(result.manifest), 'image')}, "
        f"{counted(len(result.left_out), 'row')} left out; image root {result.image_root} -> {output}"
    )
    if result.left_out:
        raise typer.Exit(1)


def validate(
    manifest: ManifestArgument,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder that the image paths start from. Default: check only the file.")
    ] = None,
    verify: VerifyOption = False,
    follow_links: FollowLinksOption = False,
) -> None:
    """Check a manifest and its images, and compare it with the catalog.

    Example: [bold]sind-hf data validate data_json/koniq10k/all.json --image-root ~/datasets --verify[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.statistics import compare_with_catalog
    from sind_hf.files import counted

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
    good = len(loaded) - len(bad_entries)
    terminal.say(f"{loaded.dataset}: {good:,} of {counted(len(loaded), 'image')} {checked}")
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
    from sind_hf.data.statistics import manifest_statistics, render_statistics
    from sind_hf.experiments.plots import plot_scene_distributions

    loaded = Manifest.load(manifest)
    terminal.output.print(render_statistics(manifest_statistics(loaded)))
    if plot is not None:
        terminal.say(f"figure written to {plot_scene_distributions(loaded, plot)}")


def label_scenes(
    manifest: ManifestArgument,
    image_root: ImageRootOption,
    clip: Annotated[str, typer.Option(help="CLIP model: a folder or a Hub repository ID.")],
    output: ManifestOutput,
    clusters: Annotated[
        int | None, typer.Option(help="Group the images into this many pseudo-scenes (k-means) instead.")
    ] = None,
    scene: Annotated[
        list[str] | None, typer.Option(help="Scene to choose from. Repeat for several. Default: SPAQ's nine.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Text to compare the images with; {scene} is replaced.")
    ] = "a photo of {scene}",
    cache: Annotated[
        Path | None, typer.Option(help="File of similarities (.jsonl), from which an interrupted run continues.")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = 0,
    follow_links: FollowLinksOption = False,
) -> None:
    """Give every image of a manifest a scene, with CLIP or by clustering.

    Example: [bold]sind-hf data label-scenes livec.json --image-root data --clip openai/clip-vit-base-patch16 -o
    livec_scenes.json[/bold]
    """
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.data.scenes import labeling as scene_labels
    from sind_hf.files import counted

    terminal.quiet_libraries()
    if clusters is not None and (scene or cache):
        raise ValueError("--clusters finds the scenes itself: leave --scene and --cache out")
    loaded = Manifest.load(manifest)
    with terminal.progress(loaded.dataset) as update:
        shared: dict[str, Any] = {
            "batch_size": batch_size,
            "workers": workers,
            "device": device,
            "progress": update,
            "follow_links": follow_links,
        }
        if clusters is not None:
            labels = scene_labels.pseudo_scenes(loaded, image_root, clip, clusters, seed=seed, **shared)
        else:
            labels = scene_labels.label_scenes(
                loaded, image_root, clip, scenes=scene or None, prompt=prompt, cache=cache, **shared
            )
    if labels.failures and not labels.labels:
        image, reason = labels.failures[0]
        raise ValueError(f"{loaded.dataset}: no image could be read; the first is {image}: {reason}")
    scene_labels.apply(loaded, labels).save(output)
    for image, reason in labels.failures:
        terminal.complain(f"{image}: {reason}")
    terminal.show_table("", ["scene", "images"], [[name, f"{count:,}"] for name, count in labels.counts().items()])
    terminal.say(f"{loaded.dataset}: {counted(len(labels.labels), 'image')} labeled -> {output}")
    if labels.failures:
        raise typer.Exit(1)


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
    from sind_hf.files import counted

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
        f"{loaded.dataset}: {counted(result.done, 'image')} prepared ({result.reused:,} by an earlier run), "
        f"{len(result.failures):,} left out; {result.bytes / 1e9:,.2f} GB in {output}"
    )
    if result.failures:
        raise typer.Exit(1)


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
    from sind_hf.files import counted

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
        terminal.say(f"{shared or 'none'} of {tested} test scenes also in train")
    else:
        terminal.say("the images have no scenes; `sind-hf data label-scenes` gives them some")
    terminal.say(f"{counted(len(written), 'manifest')} written to {output}")


data = typer.Typer(
    help="Datasets: build, import, check, describe, split, label and prepare manifests.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
data.command()(build)
data.command("import")(import_scores)
data.command()(validate)
data.command()(stats)
data.command()(split)
data.command("label-scenes")(label_scenes)
data.command()(prepare)
