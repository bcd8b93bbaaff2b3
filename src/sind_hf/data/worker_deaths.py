"""Loader processes that die: killed by hand, or by the system when memory runs out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# The words of torch.utils.data, which knows no exception of its own for this.
_DEATH = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)")


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
    except RuntimeError as error:
        if (death := worker_death(error)) is None:
            raise
        raise ValueError(f"{death}; {kept}.") from error


def worker_death(error: BaseException) -> str | None:
    """Say what became of a loader process; None for errors of other kinds."""
    found = _DEATH.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    how = found[1] or "no reason given"
    return f"A process that loads pictures has died ({how}), often for want of memory: take fewer workers"
