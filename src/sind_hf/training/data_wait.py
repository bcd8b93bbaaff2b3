"""How long a training waits for its data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class DataWait:
    """Share of the time that passes in fetching batches, from the first one on or since it was last asked for.

    On a GPU, which computes on while the next batch is fetched, it bounds the share of the time that the GPU is idle.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._since: float | None = None

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Count the time inside the `with` block as waiting."""
        started = time.perf_counter()
        self._since = self._since or started
        yield
        self._waited += time.perf_counter() - started

    def share(self) -> float:
        """Return the share, 0 to 1, and begin anew."""
        now = time.perf_counter()
        share = self._waited / max(now - (self._since or now), 1e-9)
        self._waited, self._since = 0.0, now
        return min(share, 1.0)
