"""Files that are whole or not there: a full disk or a kill costs the new file, never the one before it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; it replaces `path` when the `with` block ends well, else it goes.

    Args:
        path: The file to make, or to make again; its folder is made if need be.

    Raises:
        ValueError: When it cannot be written; what `path` held before is as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        what = f"cannot be written ({reason(error)})"
        raise ValueError(f"{target}: {what}; make room, or choose another place.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8, whole.

    Raises:
        ValueError: See `written_file`.
    """
    with written_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def reason(error: OSError) -> str:
    """Say what an error of the operating system means, without the path that messages name already."""
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or " ".join(str(error).split())
