"""`sind-hf data label-scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import (
    BatchSizeOption,
    DeviceOption,
    FollowLinksOption,
    ImageRootOption,
    ManifestArgument,
    ManifestOutput,
    SeedOption,
    WorkersOption,
)


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

    terminal.quiet_libraries()
    if clusters is not None and (scene or cache):
        raise ValueError("--clusters finds the scenes itself: leave --scene and --cache out")
    loaded = Manifest.load(manifest)
    with terminal.progress(loaded.dataset) as update:
        if clusters is not None:
            labels = scene_labels.pseudo_scenes(
                loaded,
                image_root,
                clip,
                clusters,
                seed=seed,
                batch_size=batch_size,
                workers=workers,
                device=device,
                progress=update,
                follow_links=follow_links,
            )
        else:
            labels = scene_labels.label_scenes(
                loaded,
                image_root,
                clip,
                scenes=scene or None,
                prompt=prompt,
                batch_size=batch_size,
                workers=workers,
                device=device,
                cache=cache,
                progress=update,
                follow_links=follow_links,
            )
    if labels.failures and not labels.labels:
        image, reason = labels.failures[0]
        raise ValueError(f"{loaded.dataset}: no image could be read; the first is {image}: {reason}")
    scene_labels.apply(loaded, labels).save(output)
    for image, reason in labels.failures:
        terminal.complain(f"{image}: {reason}")
    terminal.show_table("", ["scene", "images"], [[name, f"{count:,}"] for name, count in labels.counts().items()])
    terminal.say(f"{loaded.dataset}: {len(labels.labels):,} images labeled -> {output}")
    if labels.failures:
        raise typer.Exit(1)
