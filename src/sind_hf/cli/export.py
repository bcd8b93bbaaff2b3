"""`sind-hf export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal


def export(
    model: Annotated[
        str, typer.Argument(help="Checkpoint to export: a folder or a Hub repository ID.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="ONNX file to write (.onnx).", show_default=False)],
) -> None:
    """Export a checkpoint to one ONNX file, for `sind-hf score --model FILE.onnx` and programs without torch.

    Example: [bold]sind-hf export demo_output/model sind.onnx[/bold]
    """
    from sind_hf.checkpoints import load_checkpoint
    from sind_hf.onnx.export import export_onnx, require_onnx

    terminal.quiet_libraries()
    require_onnx()
    scorer, processor = load_checkpoint(model, device="cpu")
    exported = export_onnx(scorer, processor, output)
    terminal.say(
        f"{exported.path}: {exported.size / 1e6:.1f} MB; its scores differ from PyTorch's by at most "
        f"{exported.difference:.1e} on generated views"
    )
