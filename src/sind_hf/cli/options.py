"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Views = Literal["center", "nine"]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="SIND checkpoint: a folder or a Hub repository.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps …; default: the first accelerator there is.")
]
DtypeOption = Annotated[str, typer.Option(help="Of the backbone: float32, bfloat16 or float16.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Processes that load pictures ahead of the model; 0: load in this one.")
]
