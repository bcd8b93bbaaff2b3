"""`sind-hf app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.app import build_app, launch_app, wait_for_end
from sind_hf.cli import terminal
from sind_hf.cli.options import BUNDLED, DeviceOption, ModelOption, ViewsOption


def web_app(
    model: ModelOption = BUNDLED,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: every machine may visit.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    reference: Annotated[
        Path | None,
        typer.Option(help="Scores for percentiles, as `sind-hf score` writes them; default: the checkpoint's own."),
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="Folder of example pictures.")] = None,
    views: ViewsOption = None,
    device: DeviceOption = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
) -> None:
    """Serve a web page that scores and compares pictures, on this machine alone unless told otherwise.

    Example: [bold]sind-hf app --model demo_output/model --reference scores.csv --open[/bold]
    """
    terminal.quiet_libraries()
    page = build_app(model, reference=reference, examples=examples, views=views, device=device)
    url = launch_app(page, host=host, port=port, open_browser=open_browser, block=False)
    terminal.note(f"the page is at {url}; Ctrl-C ends it")
    wait_for_end(page)
