"""`sind-hf convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sind_hf.cli import terminal


def convert(
    weights: Annotated[
        Path, typer.Argument(help="File of weights: .pth, .pt, .bin or .safetensors.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    config: Annotated[Path | None, typer.Option(help="JSON with sizes, num_attention_heads, hidden_act.")] = None,
    num_attention_heads: Annotated[int | None, typer.Option(min=1, help="Default: width / 64.")] = None,
    hidden_act: Annotated[
        str | None, typer.Option(help="quick_gelu, as OpenAI's weights need, or gelu. Default: quick_gelu.")
    ] = None,
    variant: Annotated[
        Literal["patch", "class", "none"] | None, typer.Option(help="Default: what the width of the head tells.")
    ] = None,
    view_size: Annotated[
        int | None, typer.Option(help="Side of the views; default: that of the position embeddings, else 224.")
    ] = None,
) -> None:
    """Make a checkpoint of this package from weights of the published code, or of a CLIP to start from.

    Example: [bold]sind-hf convert official.pth sind-clip-vit-b16[/bold]

    Sizes and variant are read from the weights. Heads and activation are not in them: what is assumed is printed.
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
            "The head is fresh: train it before any score means something, "
            f"sind-hf train --config FILE.yaml model.checkpoint={output}"
        )
    else:
        terminal.say(
            "Its scores are on no declared scale; to put them on that of a dataset: "
            f"sind-hf evaluate --model {output} --manifest FILE.json --image-root DIR --calibrate"
        )
