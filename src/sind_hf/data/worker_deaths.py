"""Loader processes that die: killed by hand, or by the system when memory runs out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

# The words of torch.utils.data, which knows no exception of its own for this.
_DEATH = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)")
_NEWS_TIME = 1.0  # seconds within which the system tells of a death


@contextmanager
def worker_deaths_named(kept: str) -> Iterator[None]:
    """Turn the death of a loader process inside the `with` block into an error of one line.

    Args:
        kept: What becomes of the work that is done, and how to go on: the end of the message.

    Raises:
        ValueError: When a process died.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        death = worker_death(error) or _death_behind(error)
        if death is None:
            raise
        raise ValueError(f"{death}; {kept}.") from error


def worker_death(error: BaseException | None) -> str | None:
    """Say what became of a loader process; None for errors of other kinds."""
    how, died = None, False
    while isinstance(error, RuntimeError) and (found := _DEATH.search(str(error))):
        how, died = found[1] or how, True  # torch says "exited" of a death whose signal is in the error below
        error = error.__cause__ or error.__context__
    if not died:
        return None
    return f"A process that loads pictures has died ({how or 'no signal'}): for want of memory? Take fewer workers"


def _death_behind(error: BaseException) -> str | None:
    """What broke the connection to a process: torch raises that from a signal's handler, which may come later."""
    if not isinstance(error, (ConnectionError, EOFError)):
        return None
    try:
        time.sleep(_NEWS_TIME)
    except RuntimeError as news:
        return worker_death(news)
    return None
