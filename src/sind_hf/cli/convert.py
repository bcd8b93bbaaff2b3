"""`sind-hf convert` and `sind-hf export`: checkpoints from other weights, and as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.cli import terminal


def convert(
    weights: Annotated[
        Path, typer.Argument(help="Weights to convert: a .pth, .pt, .bin or .safetensors file.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="Folder to write the checkpoint to.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(help="JSON file with the sizes, num_attention_heads and hidden_act.")
    ] = None,
    num_attention_heads: Annotated[
        int | None, typer.Option(min=1, help="Number of attention heads. Default: width / 64.")
    ] = None,
    hidden_act: Annotated[
        str | None,
        typer.Option(help="Activation: quick_gelu, which OpenAI's weights need, or gelu. Default: quick_gelu."),
    ] = None,
    variant: Annotated[
        Literal["patch", "class", "none"] | None,
        typer.Option(help="Local branch. Default: read from the width of the head."),
    ] = None,
    view_size: Annotated[
        int | None,
        typer.Option(help="Side of the views, in pixels. Default: the size of the position embeddings, or else 224."),
    ] = None,
) -> None:
    """Make a checkpoint from weights of the published code, or from the CLIP weights that a training starts from.

    Example: [bold]sind-hf convert official.pth sind-clip-vit-b16[/bold]

    Sizes and variant are read from the weights. Heads and activation are not stored there; the command prints what it
    assumes.
    """
    from sind_hf.conversion.convert import convert_checkpoint

    terminal.quiet_libraries()
    done = convert_checkpoint(
        weights,
        output,
        variant=variant,
        view_size=view_size,
        num_attention_heads=num_attention_heads,
        hidden_act=hidden_act,
        config=config,
    )
    for line in done.summary():
        terminal.say(line)
    terminal.say(f"written to {output}")
    if done.fresh_head:
        terminal.say(
            f"The head is new: train it before you use its scores, sind-hf train FILE.yaml model.checkpoint={output}"
        )
    else:
        terminal.say(
            "Its scores are on no declared scale. To put them on the scale of a dataset: "
            f"sind-hf evaluate --model {output} --manifest FILE.json --image-root DIR --calibrate"
        )


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
