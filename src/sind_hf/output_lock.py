"""One run at a time for every output: two that write to the same place would each spoil what the other keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def sole_use(output: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other runs from an output file or folder while the `with` block lasts.

    The lock is the operating system's, on a hidden file beside the output: it ends with the process, in any way.

    Args:
        output: File or folder; need not exist.

    Raises:
        ValueError: When another run has it, or nothing can be written there.
    """
    path = Path(output)
    place = path.absolute()
    file = place.with_name(f".{place.name}.lock")
    lock = FileLock(file, timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{path}: another run is writing there; wait until it ends, or choose another output."
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be written there ({error.strerror}); choose another output.") from None
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # while it is held: whoever opens it later gets a new one
        lock.release()
