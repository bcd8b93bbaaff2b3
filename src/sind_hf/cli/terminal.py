"""What the commands show: progress, tables and errors; rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sind_hf.distributed import worker_death
from sind_hf.image_processing_sind import printable

# Results go to standard output; progress and errors to standard error, so that results can be piped.
# Without a terminal lines are as long as they need be: cut tables would lose numbers.
output = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
messages = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 10_000)

LONGEST_LINE = 1000  # characters; a name in a line is cut to less, a line may hold several
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal


def fail(error: object, code: int = 2) -> NoReturn:
    """Print an error as one line and end the program."""
    messages.print(f"error: {one_line(in_one_line(error))}", style="bold red", markup=False)
    sys.exit(code)


def in_one_line(error: object) -> str:
    """Return what an error says, as one line; one that is not the user's with its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError) and (death := worker_death(error)):  # noticed between two pieces of work
        return f"{death}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'system'}: {error.strerror}"
    if isinstance(error, Exception) and not isinstance(error, (ValueError, ImportError)):
        return f"{type(error).__name__}: {text} (run again with --debug to see where)"
    return text


def note(line: str) -> None:
    """Print a line that is no result."""
    messages.print(one_line(line), markup=False)


def show(renderable: RenderableType) -> None:
    """Print something made for a terminal as part of the result."""
    output.print(renderable)


def complain(line: str) -> None:
    """Print one line about an input that could not be used."""
    messages.print(f"left out: {one_line(line)}", style="yellow", markup=False)


def say(line: str = "", style: str | None = None) -> None:
    """Print a line of the result."""
    output.print(one_line(line), style=style, markup=False)


def one_line(text: object) -> str:
    """Return text as one line that cannot steer the terminal, whatever names it holds."""
    return printable(text, LONGEST_LINE)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    if title:
        output.print(one_line(title), style="bold", markup=False)  # rich would wrap a table's own title to its width
    table = Table(box=None, pad_edge=False)
    # As Text: brackets in a name are not markup.
    for number, column in enumerate(columns):
        table.add_column(Text(printable(column)), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    output.print(table)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show how far a job is: a bar on a terminal, else a line every ten seconds. Yields `update(done, total)`.

    A total of None says that nobody knows it.
    """
    title = one_line(title)
    if not messages.is_terminal:
        yield _plain_progress(title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stage(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a named stage, and how long it took when it ends."""
    started = time.monotonic()
    with progress(title) as update:
        yield update
    messages.print(f"{one_line(title)}: done in {time.monotonic() - started:.0f} s", style="dim", markup=False)


def _plain_progress(title: str) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_INTERVAL:
            last = time.monotonic()
            messages.print(f"{title}: {done}" + (f"/{total}" if total is not None else ""), markup=False)

    return update


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Return a warning as one line, without the source line that Python adds."""
    return f"warning: {one_line(message)}\n"


def quiet_libraries() -> None:
    """Silence the bars and notes of the libraries below: the commands report for themselves."""
    import datasets
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    warnings.formatwarning = _format_warning
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    if not os.environ.get("HF_HUB_OFFLINE"):
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    else:
        disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
