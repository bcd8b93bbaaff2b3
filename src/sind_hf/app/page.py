"""The page itself: Gradio's parts, wired to the judge and the panels.

Gradio is imported on first use: it is an extra, takes seconds, and must find its environment set.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from sind_hf.app import panels
from sind_hf.app.judge import Judge
from sind_hf.app.limits import UPLOAD_BYTES, RequestLimits, limit_connections
from sind_hf.app.uploads import MAX_BYTES, MAX_PICTURES, MAX_PIXELS, example_pictures

if TYPE_CHECKING:
    from gradio import Blocks

TITLE = "How good does this photograph look?"
BATCH_SIDE = 360  # pixels of the pictures in a table
# A file from MAX_BYTES to here is named and the others of its upload are scored; above, the upload is refused.
REFUSED_BYTES = UPLOAD_BYTES
WORKERS = 3  # requests that are decoded at once; the model takes one at a time
WAITING = 40  # requests that may wait; more are told to try again
ABANDONED_AFTER = 900  # seconds until an upload that nobody scored is deleted
SWEEP_EVERY = 60
FONTS = ("system-ui", "sans-serif")
EACH = f"{MAX_BYTES // 2**20} MB and {MAX_PIXELS // 10**6} megapixels each"
LIMITS = f"At most {MAX_PICTURES} at once, {EACH}, {UPLOAD_BYTES // 2**20} MB together."
COMPARE_HINT = f"Add two pictures, at most {EACH}."
# Results stand above the examples and below the uploads: on a small screen they may be out of sight.
SHOW_RESULT = """() => document.querySelectorAll("#scored, #compared").forEach(panel => {
  const { top, height } = panel.getBoundingClientRect();
  if (height && (top < 0 || top > innerHeight / 2)) panel.scrollIntoView({ behavior: "smooth" });
})"""
PRIVACY = "Pictures are deleted from the server as soon as they are scored."


def build_app(
    model: str | Judge,
    *,
    reference: str | os.PathLike[str] | None = None,
    examples: str | os.PathLike[str] | None = None,
    views: Literal["center", "nine"] | None = None,
    device: str | None = None,
    name: str | None = None,
    title: str = TITLE,
) -> Blocks:
    """Make the page for one checkpoint; `launch_app` serves it.

    Args:
        model: Folder, Hub repository or exported file (`.onnx`), or a `Judge` that is ready.
        reference: Scores that percentiles refer to, as `sind-hf score --output` writes them; default: the file
            `reference_scores.csv` of the checkpoint, where it has one.
        examples: Folder of example pictures; default: see `example_pictures`.
        views: `"center"` or `"nine"` (nine times the work, steadier); default: the checkpoint's own.
        device: Where the model runs; default: the first accelerator there is, else the CPU.
        name: What the page calls the model; default: its repository, or the end of its folder's path.
        title: Heading of the page.

    Raises:
        ValueError: When Gradio is not installed, or the checkpoint, the reference or an example cannot be used.
    """
    gr = _gradio()
    if isinstance(model, str):
        model = Judge.load(model, name=name, reference=reference, views=views, device=device)
    judge, scale = model, panels.Scale.of(model)
    shown = example_pictures(examples)

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(SWEEP_EVERY, ABANDONED_AFTER)) as page:
        gr.HTML(_heading(title, judge, scale))
        with gr.Tab("Score"):
            drop = _upload_field(gr, "Drop pictures here, one or several", file_count="multiple")
            scored = gr.HTML(panels.note(LIMITS), elem_id="scored", padding=False)
            gallery = _gallery(gr, shown)
        with gr.Tab("Compare"):
            with gr.Row():
                first, second = (_upload_field(gr, f"Picture {letter}", min_width=240) for letter in "AB")
            compared = gr.HTML(panels.note(COMPARE_HINT), elem_id="compared", padding=False)
            two = [f"“{name}”" for name in list(shown)[:2]]
            pair = gr.Button(f"Compare the examples {' and '.join(two)}") if len(two) == 2 else None
        gr.HTML(panels.note(PRIVACY), padding=False)
        examples_kept = set(gallery.keep_in_cache) if gallery is not None else set()

        def score(files: list[str] | None, progress: Any = gr.Progress()) -> tuple[str, None]:  # noqa: B008
            try:
                return score_files(judge, files, lambda done, of: progress((done, of), desc="scoring")), None
            finally:
                _delete(files, examples_kept)

        def compare(a: str | None, b: str | None) -> tuple[str, Any, Any]:
            if a is None or b is None:
                return compare_files(judge, a, b), gr.skip(), gr.skip()
            try:
                return compare_files(judge, a, b), None, None
            finally:
                _delete([a, b], examples_kept)

        def score_example(event: Any) -> str:
            return panels.score_panel(next(judge.verdicts([list(shown.items())[event.index]])), scale)

        def compare_examples() -> str:
            a, b = judge.verdicts(list(shown.items())[:2])
            return panels.comparison_panel(a, b, scale)

        # Gradio goes by the annotation, which cannot name a module that is imported late.
        score_example.__annotations__["event"] = gr.SelectData
        # An image that is slow to decode must not stop the page for others; the judge lets one at a time to the model.
        shared: dict[str, Any] = {
            "concurrency_id": "model",
            "concurrency_limit": WORKERS,
            "api_visibility": "undocumented",
        }
        events = [drop.upload(score, drop, [scored, drop], api_name="score", show_progress_on=scored, **shared)]
        for side in (first, second):
            both = [first, second]
            events.append(
                side.upload(compare, both, [compared, *both], api_name="compare", show_progress_on=compared, **shared)
            )
        if gallery is not None:
            events.append(gallery.select(score_example, None, scored, api_name=False, **shared))
        if pair is not None:
            events.append(pair.click(compare_examples, None, compared, api_name=False, **shared))
        for event in events:
            event.then(None, js=SHOW_RESULT)
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
        page: What `build_app` made.
        host: Address to listen on; the default answers this machine only, `"0.0.0.0"` every one that reaches it.
        port: Port to listen on.
        open_browser: Show the page in a browser on this machine.
        block: Whether to return only when the server ends; if not, `page.close()` ends it.

    Returns:
        The address of the page.

    Raises:
        ValueError: When the port is taken or the address is none of this machine's.
    """
    gr = _gradio()
    from starlette.middleware import Middleware

    fonts = [gr.themes.Font(name) for name in FONTS]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Gradio reports there what the command says in its own words
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                max_file_size=REFUSED_BYTES,
                theme=gr.themes.Default(font=fonts, font_mono=[gr.themes.Font("monospace")]),
                css_paths=Path(__file__).with_name("page.css"),
                footer_links=[],
                ssr_mode=False,
                enable_monitoring=False,
                quiet=True,
                show_error=False,  # their text names folders of the server; what visitors can mend is in the results
                app_kwargs={"middleware": [Middleware(RequestLimits, folder=Path(_upload_folder()))]},
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
    """Return the panel of one picture, or the table of several.

    Args:
        judge: Scores them.
        files: Uploaded files.
        progress: Called with (pictures done, pictures in all).
    """
    scale = panels.Scale.of(judge)
    if not files:
        return panels.note(LIMITS)
    if len(files) > MAX_PICTURES:
        return panels.complaints(
            [f"{len(files)} pictures are more than the {MAX_PICTURES} that are scored at once: add fewer."]
        )
    if len(files) == 1:
        return panels.score_panel(next(judge.verdicts(files)), scale)
    return panels.batch_panel(list(judge.verdicts(files, BATCH_SIDE, progress)), scale)


def compare_files(judge: Judge, first: str | None, second: str | None) -> str:
    """Return the panel of two uploaded pictures, or what is still missing."""
    if first is None or second is None:
        missing = {
            (True, True): COMPARE_HINT,
            (True, False): "Now add picture A.",
            (False, True): "Now add picture B.",
        }
        return panels.note(missing[first is None, second is None])
    a, b = judge.verdicts([first, second])
    return panels.comparison_panel(a, b, panels.Scale.of(judge))


def _heading(title: str, judge: Judge, scale: panels.Scale) -> str:
    views = "nine pairs of views per picture" if judge.views == "nine" else "one pair of views per picture"
    words = f"Scores by the SIND model “{judge.name}”, {scale.in_words()}. It looks at {views}."
    return f'<div class="sind-title"><h1>{escape(title)}</h1><p>{escape(words)}</p></div>'


def _upload_field(gr: Any, label: str, **options: Any) -> Any:
    """Make a field for files whose events get their paths; Gradio's own way leaves an empty file behind for each."""

    def paths(payload: Any) -> list[str] | str | None:
        if payload is None:
            return None
        return [file.path for file in payload.root] if hasattr(payload, "root") else payload.path

    async def uploaded(path: str) -> str:
        """Return the path of an upload unchanged; Gradio would fetch an address."""
        file = Path(path).resolve()
        if not file.is_relative_to(_upload_folder()):
            raise gr.Error("Add an image from your device: addresses are not fetched.")
        return str(file)

    field = gr.File(label=label, height=150, **options)
    field.preprocess, field.async_move_resource_to_block_cache = paths, uploaded
    return field


def _gallery(gr: Any, pictures: Mapping[str, Image.Image]) -> Any:
    """Show the examples small; a click scores the whole picture."""
    if not pictures:
        return None
    thumbs = []
    for name, picture in pictures.items():
        small = picture.copy()
        small.thumbnail((320, 320))
        thumbs.append((small, name))
    return gr.Gallery(
        thumbs,
        label="Or click an example",
        elem_id="examples",
        columns=3,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )


def _gradio() -> Any:
    """Import Gradio so that it reports to nobody and keeps uploads in a folder that ends with this program.

    Raises:
        ValueError: When it is not installed.
    """
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
    """Delete uploads. A client may name the example images as its upload: those stay."""
    for file in files or ():
        if file is not None and file not in kept:
            with contextlib.suppress(OSError):
                Path(file).unlink()
                for folder in Path(file).relative_to(_upload_folder()).parents[:-1]:
                    (Path(_upload_folder()) / folder).rmdir()  # unless other images of the upload are in it


def wait_for_end(page: Blocks) -> None:
    """Return when the program is interrupted or told to end, so that the uploads are deleted either way."""
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
