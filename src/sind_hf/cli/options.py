"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Views = Literal["center", "nine"]
BUNDLED = "bundled"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Checkpoint to use: bundled, a folder, a Hub repository ID or an exported .onnx file.",
    ),
]
ViewsOption = Annotated[
    Views | None,
    typer.Option(
        help="Views of each image. nine: nine times the work, steadier scores. Default: the checkpoint's own."
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="Device to compute on: cpu, cuda, cuda:1, mps … Default: the first accelerator, or else the CPU."
    ),
]
RuntimeOption = Annotated[
    Path | None,
    typer.Option(
        help="With --static: copy of the npm package onnxruntime-web (.tgz or folder). Default: npm fetches it."
    ),
]
DtypeOption = Annotated[str, typer.Option(help="Number type of the backbone: float32, bfloat16 or float16.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Processes that load images ahead of the model; 0: load in this one.")
]
ManifestArgument = Annotated[Path, typer.Argument(help="Manifest of a dataset (.json).", show_default=False)]
ManifestOutput = Annotated[Path, typer.Option("--output", "-o", help="Manifest to write (.json).")]
ImageRootOption = Annotated[Path, typer.Option(help="Folder that the manifest's image paths start from.")]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Decode every image.")]
FollowLinksOption = Annotated[
    bool, typer.Option("--follow-links", help="Use images that symbolic links name outside the image root.")
]
ClipOption = Annotated[
    str | None, typer.Option(help="CLIP model that chooses the scenes which the dataset leaves open.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of random choices.")]


def key_values(option: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """Turn the values of an option that takes KEY=VALUE into a dictionary.

    Raises:
        ValueError: If a value has no KEY=, or a key is given twice.
    """
    values: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{option} takes KEY=VALUE, got {pair!r}")
        if key in values:
            raise ValueError(f"{option} sets {key!r} twice")
        values[key] = value
    return values
