"""Output of the commands: progress, tables and errors. Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# Results go to standard output; progress and errors to standard error, so that results can be piped.
# Without a terminal, lines are never cut: tables would lose numbers.
output = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
messages = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 10_000)

LONGEST_LINE = 1000  # characters
LONGEST_NAME = 300  # characters; a line may hold several
PLAIN_INTERVAL = 10.0  # seconds between progress lines without a terminal


def fail(error: object, code: int = 2) -> NoReturn:
    """Print an error as one line and end the program."""
    messages.print(f"error: {one_line(in_one_line(error))}", style="bold red", markup=False)
    sys.exit(code)


def show_traceback(error: BaseException) -> None:
    """Print where an error comes from; names in it are escaped as everywhere else."""
    for text in traceback.format_exception(error):
        for line in text.rstrip("\n").split("\n"):
            messages.print(one_line(line), markup=False)


def in_one_line(error: object) -> str:
    """Return the message of an error as one line, with its type if it looks like a bug."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError):
        from sind_hf.distributed import worker_death

        if death := worker_death(error):  # noticed between two pieces of work
            return f"{death}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'system'}: {error.strerror}"
    if isinstance(error, Exception) and not isinstance(error, (ValueError, ImportError)):
        return f"{type(error).__name__}: {text} (run again with --debug to see where)"
    return text


def note(line: str) -> None:
    """Print a line that is not part of the result."""
    messages.print(one_line(line), markup=False)


def complain(line: str) -> None:
    """Print one line about an input that could not be used."""
    messages.print(f"left out: {one_line(line)}", style="yellow", markup=False)


def say(line: str = "") -> None:
    """Print a line of the result."""
    output.print(one_line(line), markup=False)


def one_line(text: object, length: int = LONGEST_LINE) -> str:
    """Return text as one line that cannot steer the terminal, whatever names it holds.

    Args:
        text: A line, a name or a path.
        length: Longest line to return, in characters.
    """
    line = str(text)
    if len(line) <= length and line.isprintable():
        return line
    from sind_hf.image_processing_sind import printable  # late, because it imports torch

    return printable(text, length)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    if title:
        output.print(one_line(title), style="bold", markup=False)  # rich would wrap a table's own title to its width
    table = Table(box=None, pad_edge=False)
    # As Text: brackets in a name are not markup.
    for number, column in enumerate(columns):
        table.add_column(
            Text(one_line(column, LONGEST_NAME)), justify="left" if number == 0 else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(one_line(cell, LONGEST_NAME)) for cell in row))
    output.print(table)


@contextmanager
def progress(title: str, unit: str | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a job: a bar on a terminal, else a line every ten seconds. Yields `update(done, total)`.

    A total of None says that it is not known.

    Args:
        title: Name of the job.
        unit: Unit of the count, such as "images"; with it the rate is shown, too.
    """
    title = one_line(title)
    if not messages.is_terminal:
        yield _plain_progress(title, unit)
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    if unit is not None:
        columns.insert(3, _RateColumn(unit))
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


class _RateColumn(ProgressColumn):
    """How much is done in a second, such as `12.5 images/s`."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self.unit}/s")


def _plain_progress(title: str, unit: str | None) -> Callable[[int, int | None], None]:
    started = last = time.monotonic()
    first: int | None = None  # a resumed job begins where it was

    def update(done: int, total: int | None) -> None:
        nonlocal first, last
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL:
            return
        last = now
        line = f"{title}: {done}" + (f"/{total}" if total is not None else "")
        rate = (done - first) / (now - started)
        if unit is not None:
            line += f", {rate:.1f} {unit}/s"
        if total is not None and total > done:
            line += f", {_duration((total - done) / rate)} left"
        messages.print(line, markup=False)

    return update


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Return a warning as one line, without the source line that Python adds."""
    return f"warning: {one_line(message)}\n"


def _duration(seconds: float) -> str:
    """Return a time in the largest unit that fits: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def quiet_libraries() -> None:
    """Silence the progress bars and notes of other libraries, because the commands have their own."""
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    warnings.formatwarning = _format_warning
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Importing datasets takes a second, and few commands need it.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if not os.environ.get("HF_HUB_OFFLINE"):
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    else:
        disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
