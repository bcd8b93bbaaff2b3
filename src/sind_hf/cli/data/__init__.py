"""`sind-hf data`: commands that make, check and change manifests, and prepare images for training."""

from __future__ import annotations

import typer

from sind_hf.cli.data.build import build
from sind_hf.cli.data.importing import import_scores
from sind_hf.cli.data.inspection import stats, validate
from sind_hf.cli.data.label_scenes import label_scenes
from sind_hf.cli.data.prepare import prepare
from sind_hf.cli.data.split import split

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
