"""`sind-hf app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import BUNDLED, DeviceOption, ModelOption, RuntimeOption, ViewsOption


def web_app(
    model: ModelOption = BUNDLED,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 lets every machine visit.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="File of scores for percentiles, as `sind-hf score` writes it. Default: the checkpoint's own."
        ),
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="Folder of example images.")] = None,
    views: ViewsOption = None,
    device: DeviceOption = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    static: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the page as plain files to this new folder, and end. It scores in the visitor's browser.",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Model card that the page links to. Default: the page of a model that is on the Hub."
        ),
    ] = None,
) -> None:
    """Serve a web page that scores and compares images; by default only this machine can visit it.

    With --static, write a folder for any host of plain files; images never leave the visitor's browser. npm fetches
    onnxruntime-web once: [bold]sind-hf app --static site[/bold]

    Example: [bold]sind-hf app --model demo_output/model --reference scores.csv --open[/bold]
    """
    from sind_hf.app import build_app, launch_app, wait_for_end
    from sind_hf.app.static_site import LARGE_MODEL, write_site
    from sind_hf.configuration_sind import resolve_checkpoint

    terminal.quiet_libraries()
    model = resolve_checkpoint(model)
    if static is not None:
        site = write_site(
            static, model, runtime=runtime, reference=reference, examples=examples, views=views, card=card
        )
        terminal.say(f"{site.folder}: {site.size / 1e6:.1f} MB, of which the model is {site.model_size / 1e6:.1f} MB")
        if site.model_size > LARGE_MODEL:
            terminal.note("visitors wait long for a model of this size: choose a smaller one for phones")
        terminal.note(f"view it with: python -m http.server --directory {site.folder}")
        return
    if runtime is not None:
        raise ValueError("--runtime belongs to a page of plain files: add --static, or leave it out.")
    page = build_app(model, reference=reference, examples=examples, views=views, device=device, card=card)
    url = launch_app(page, host=host, port=port, open_browser=open_browser, block=False)
    terminal.note(f"the page is at {url}; Ctrl-C ends it")
    wait_for_end(page)
