"""The page with a server: Gradio's components, wired to the judge and the panels.

Gradio is imported on first use: it is an extra, takes seconds, and reads its environment when it is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sind_hf.app import panels
from sind_hf.app.judge import Judge
from sind_hf.app.middleware import UPLOAD_BYTES, PageDocument, RequestLimits, limit_connections
from sind_hf.app.uploads import (
    MAX_BYTES,
    MAX_IMAGES,
    MAX_PIXELS,
    Example,
    example_images,
    readable_formats,
    small_copy,
)

if TYPE_CHECKING:
    from gradio import Blocks

TITLE = "How good does this photograph look?"
BATCH_SIDE = 360  # pixels of the images in a table
WORKERS = 8  # requests that decode images at once; the model takes one image at a time
WAITING = 40  # requests that may wait; more are told to try again
ABANDONED_AFTER = 900  # seconds until an upload that nobody scored is deleted
SWEEP_EVERY = 60
FONTS = ("system-ui", "sans-serif")
EACH = f"{MAX_BYTES // 2**20} MB and {MAX_PIXELS // 10**6} megapixels each"
LIMITS = f"At most {MAX_IMAGES} at once, {EACH}, {UPLOAD_BYTES // 2**20} MB together."
COMPARE_HINT = "Add two images, one by one or both at once."
PRIVACY = "Images are deleted from the server as soon as they are scored."
# Gradio's own quiet color is too pale to read. These have a contrast of at least 4.5 : 1.
QUIET, QUIET_DARK = "#565d66", "#a9b1ba"


def build_app(
    model: str | Judge,
    *,
    reference: str | os.PathLike[str] | None = None,
    examples: str | os.PathLike[str] | None = None,
    views: Literal["center", "nine"] | None = None,
    device: str | None = None,
    name: str | None = None,
    title: str = TITLE,
    card: str | None = None,
) -> Blocks:
    """Make the page for one checkpoint; `launch_app` serves it.

    Args:
        model: Folder, Hub repository or exported file (`.onnx`), or a `Judge`.
        reference: Scores that percentiles and words refer to, as `sind-hf score --output` writes them; default: the
            checkpoint's own, if it has any.
        examples: Folder of example images; default: see `example_images`.
        views: `"center"` or `"nine"` (nine times the work, steadier); default: the checkpoint's own.
        device: Device of the model; default: the first accelerator, or else the CPU.
        name: Name of the model that the page shows; default: its repository, or the end of its folder's path.
        title: Heading of the page.
        card: Address of the model card, which the page links to; default: the page of a Hub repository.

    Raises:
        ValueError: When Gradio is not installed, or the checkpoint, the reference or an example cannot be used.
    """
    gr = _gradio()
    card = panels.card_address(model, card)
    if isinstance(model, str):
        model = Judge.load(model, name=name, reference=reference, views=views, device=device)
    judge, scale = model, panels.Scale.of(model)
    shown = example_images(examples)
    pair_of_examples = [(example.name, example.image) for example in shown[:2]]

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(SWEEP_EVERY, ABANDONED_AFTER)) as page:
        gr.HTML(_heading(title, judge, card, shown))
        with gr.Tab("Score"):
            drop = _upload_field(gr, "Images to score", elem_id="drop", height=150)
            scored = gr.HTML(panels.note(f"{readable_formats()}. {LIMITS}"), elem_id="scored", padding=False)
            if shown:
                gr.HTML(panels.note("Or try an example:"), padding=False)
            gallery = _gallery(gr, shown)
        with gr.Tab("Compare"):
            with gr.Row(elem_id="slots"):
                first, second = (
                    _upload_field(gr, f"Image {letter}", elem_id=f"slot-{letter}", height=110, min_width=120)
                    for letter in "AB"
                )
            compared = gr.HTML(panels.note(COMPARE_HINT), elem_id="compared", padding=False)
            two = [f"“{name}”" for name, _ in pair_of_examples]
            pair = gr.Button(f"Compare the examples {' and '.join(two)}") if len(two) == 2 else None
        gr.HTML(panels.note(PRIVACY) + panels.limits(judge), padding=False)
        examples_kept = set(gallery.keep_in_cache) if gallery is not None else set()

        def score(files: list[str] | None, progress: Any = gr.Progress()) -> tuple[str, None]:  # noqa: B008
            try:
                return score_files(judge, files, lambda done, of: progress((done, of), desc="scoring")), None
            finally:
                _delete(files, examples_kept)

        def compare(a: list[str] | None, b: list[str] | None) -> tuple[str, Any, Any]:
            files = two_files(a, b)
            if None in files:
                return compare_files(judge, *files), gr.skip(), gr.skip()
            try:
                return compare_files(judge, *files), None, None
            finally:
                _delete([*(a or ()), *(b or ())], examples_kept)

        def score_example(event: Any) -> str:
            example = shown[event.index]
            return panels.results("score", list(judge.verdicts([(example.name, example.image)])), scale)

        def compare_examples() -> str:
            return panels.results("compare", list(judge.verdicts(pair_of_examples)), scale)

        # Gradio reads the annotation, which cannot name a module that is imported late.
        score_example.__annotations__["event"] = gr.SelectData
        # An image that is slow to decode must not stop the page for others.
        shared: dict[str, Any] = {
            "concurrency_id": "model",
            "concurrency_limit": WORKERS,
            "api_visibility": "undocumented",
        }
        drop.upload(score, drop, [scored, drop], api_name="score", show_progress_on=scored, **shared)
        for side in (first, second):
            both = [first, second]
            side.upload(compare, both, [compared, *both], api_name="compare", show_progress_on=compared, **shared)
        if gallery is not None:
            gallery.select(score_example, None, scored, api_name=False, **shared)
        if pair is not None:
            pair.click(compare_examples, None, compared, api_name=False, **shared)
    return page.queue(max_size=WAITING)


def launch_app(
    page: Blocks,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = False,
    block: bool = True,
) -> str:
    """Serve a page until the program is interrupted. It is never shared through a tunnel.

    Args:
        page: Page that `build_app` made.
        host: Address to listen on. The default answers this machine only; `"0.0.0.0"` answers every machine.
        port: Port to listen on.
        open_browser: Whether to show the page in a browser on this machine.
        block: Whether to return only when the server ends. Otherwise `page.close()` ends it.

    Returns:
        The address of the page.

    Raises:
        ValueError: When the port is taken, or the address is not one of this machine.
    """
    gr = _gradio()
    from starlette.middleware import Middleware

    fonts = [gr.themes.Font(name) for name in FONTS]
    theme = gr.themes.Default(font=fonts, font_mono=[gr.themes.Font("monospace")]).set(
        body_text_color_subdued=QUIET, body_text_color_subdued_dark=QUIET_DARK
    )
    middleware = [
        Middleware(RequestLimits, folder=Path(_upload_folder())),
        Middleware(PageDocument, title=str(page.title)),
    ]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the command says in its own words what Gradio prints
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                max_file_size=UPLOAD_BYTES,  # files from MAX_BYTES to here are named, and the others are scored
                theme=theme,
                i18n=gr.I18n(en={"common.complete": "Done"}),  # Gradio reads it to screen readers, and lacks the words
                css_paths=Path(__file__).with_name("page.css"),
                footer_links=[],
                ssr_mode=False,
                enable_monitoring=False,
                quiet=True,
                show_error=False,  # errors name folders of the server; what visitors can mend is in the results
                app_kwargs={"middleware": middleware},
                prevent_thread_lock=True,
            )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot listen on {host}, port {port}: the port is taken or the address is not this machine's; "
            "choose others with --host and --port."
        ) from error
    limit_connections(page.server)
    if block:
        wait_for_end(page)
    return url


def score_files(judge: Judge, files: Sequence[str] | None, progress: Callable[[int, int], None] | None = None) -> str:
    """Return the panel of one uploaded image, or the table of several, as HTML. `progress`: see `Judge.verdicts`."""
    scale = panels.Scale.of(judge)
    if not files:
        return panels.note(LIMITS)
    if len(files) > MAX_IMAGES:
        return panels.complaints(
            [f"{len(files)} images are more than the {MAX_IMAGES} that are scored at once: add fewer."]
        )
    if len(files) == 1:
        return panels.results("score", list(judge.verdicts(files)), scale)
    return panels.results("batch", list(judge.verdicts(files, BATCH_SIDE, progress)), scale)


def two_files(a: Sequence[str] | None, b: Sequence[str] | None) -> tuple[str | None, str | None]:
    """Return the two files to compare from the files in both fields; two files in one field fill both sides."""
    for files in (a, b):
        if files and len(files) > 1:
            return files[0], files[1]
    return (a[0] if a else None), (b[0] if b else None)


def compare_files(judge: Judge, first: str | None, second: str | None) -> str:
    """Return the comparison of two uploaded images as HTML, or what is still missing."""
    if first is None or second is None:
        missing = {
            (True, True): COMPARE_HINT,
            (True, False): "Now add image A.",
            (False, True): "Now add image B.",
        }
        return panels.note(missing[first is None, second is None])
    return panels.results("compare", list(judge.verdicts([first, second])), panels.Scale.of(judge))


def _heading(title: str, judge: Judge, card: str | None, examples: Sequence[Example]) -> str:
    shown = [{"name": example.name, "alt": example.alt} for example in examples]
    facts = json.dumps({**panels.page_facts(judge), "examples": shown}, allow_nan=False)
    return (
        f'<div class="sind-title" id="sind-facts" data-facts="{escape(facts)}"><h1>{escape(title)}</h1>'
        f"<p>{escape(panels.caption(judge))} {panels.links(card)}</p></div>"
    )


def _upload_field(gr: Any, label: str, **options: Any) -> Any:
    """Make a field for files whose events get their paths; Gradio's own way leaves an empty file behind for each."""

    def paths(payload: Any) -> list[str] | None:
        return None if payload is None else [file.path for file in payload.root]

    async def uploaded(path: str) -> str:
        """Return the path of an upload unchanged; Gradio would fetch an address."""
        file = Path(path).resolve()
        if not file.is_relative_to(_upload_folder()):
            raise gr.Error("Add an image from your device: addresses are not fetched.")
        return str(file)

    field = gr.File(label=label, show_label=False, file_count="multiple", **options)
    field.preprocess, field.async_move_resource_to_block_cache = paths, uploaded
    return field


def _gallery(gr: Any, examples: Sequence[Example]) -> Any:
    """Show the examples small; a click scores the whole image."""
    if not examples:
        return None
    return gr.Gallery(
        [(small_copy(example.image, 320), example.name) for example in examples],
        label="Examples",
        show_label=False,
        elem_id="examples",
        columns=3,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )


def _gradio() -> Any:
    """Import Gradio without its telemetry, and with a folder for uploads that is deleted with this program."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the web demo needs gradio; install it: pip install "sind-hf[app]"')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = _upload_folder()
    import gradio

    return gradio


@functools.cache
def _upload_folder() -> str:
    folder = os.path.realpath(tempfile.mkdtemp(prefix="sind-hf-app-"))  # readable by this user alone
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _delete(files: Iterable[str | None] | None, kept: Iterable[str]) -> None:
    """Delete uploads, but no example: a client may name one as its upload."""
    for file in files or ():
        if file is not None and file not in kept:
            with contextlib.suppress(OSError):
                Path(file).unlink()
                for folder in Path(file).relative_to(_upload_folder()).parents[:-1]:
                    (Path(_upload_folder()) / folder).rmdir()  # unless other images of the upload are in it


def wait_for_end(page: Blocks) -> None:
    """Return when the program is interrupted or terminated, so that the uploads are deleted either way."""
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        while not stop.wait(0.5):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)
