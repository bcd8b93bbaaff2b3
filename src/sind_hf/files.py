"""Files and folders that are written completely or not at all, and the lock that keeps two runs from one output.

A new file or folder is written under a hidden temporary name beside its target, synced to the disk, and renamed. A
full disk, a kill or a power failure loses the new version, never the previous one. Temporary files of a killed run are
removed when the same target is written again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout
from safetensors import SafetensorError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_NAME = 255  # bytes, on most file systems
LARGEST_TEXT = 2**28  # bytes of a file that is read at once


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path to write a file to; the file replaces `path` when the `with` block ends without an error.

    Args:
        path: File to make or to replace. Missing folders above it are made.
        sync: Wait until the file is on the disk. Without it a power failure may leave an empty file; a kill cannot.
            For thousands of small files that can be made again.

    Raises:
        ValueError: If the file cannot be written; `path` is unchanged.
    """
    target = Path(path)
    try:
        _make_folder(target.parent)
        with _temporary(target.parent, target.name, folder=False) as temporary:
            yield temporary
            if sync:
                _sync(temporary)
            os.replace(temporary, target)
            if sync:
                _sync(target.parent)
    except OSError as error:
        what = f"cannot be written ({reason(error)})"
        raise ValueError(f"{target}: {what}; make room, or choose another folder.") from error


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to write into; it becomes `path` when the `with` block ends without an error.

    A folder that is missing or empty appears in one step. Where it holds files already, the new ones replace those of
    the same name, each in one step, and the others stay.

    Args:
        path: Folder to make or to write to. Missing folders above it are made.

    Raises:
        ValueError: If the files cannot be written; what `path` held before is unchanged.
    """
    target = Path(path)
    try:
        _make_folder(target.parent)
        inside = target.is_dir() and (target.is_mount() or any(target.iterdir()))
        place, name = (target, "writing") if inside else (target.parent, target.name)
        with _temporary(place, name, folder=True) as temporary:
            yield temporary
            sync_folder(temporary)
            if not inside:
                try:
                    os.replace(temporary, target)
                    _sync(target.parent)
                    return
                except OSError as error:  # another process may have written into the folder meanwhile
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
            _move_files(temporary, target)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{target}: cannot be saved ({reason(error)}); the earlier files are unchanged.") from error


def open_text(
    path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict", newline: str | None = None
) -> TextIO:
    """Open a regular file to read its text; named pipes, devices and sockets are refused before they are opened.

    Raises:
        OSError: If there is no such file, it may not be read, or is not a regular file; `strerror` says which.
    """
    from sind_hf.image_processing_sind import open_regular_file  # late, because it imports torch

    return io.TextIOWrapper(open_regular_file(path), encoding, errors, newline)


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a text file.

    Raises:
        OSError: See `open_text`; or when the file has more than `LARGEST_TEXT` bytes.
        UnicodeDecodeError: If it holds other bytes than text in this encoding.
    """
    with open_text(path, encoding, errors) as file:
        if os.fstat(file.fileno()).st_size > LARGEST_TEXT:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST_TEXT:,} bytes", os.fspath(path))
        return file.read()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8, completely or not at all.

    Raises:
        ValueError: See `atomic_file`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write a JSON file, completely or not at all; numbers that are not finite become null.

    Raises:
        ValueError: See `atomic_file`.
    """
    write_text(path, json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n")


def remove_leftovers(folder: str | os.PathLike[str], targets: str) -> None:
    """Remove the temporary files and folders of killed runs from a folder; those of running ones stay.

    `targets` is the pattern of the names that were to be written, such as `"shard-*"`. The folder need not exist.
    """
    for path in Path(folder).glob(f".{targets}.tmp"):
        _remove_leftover(path)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until a folder and all its files are on the disk.

    Raises:
        OSError: If the disk reports an error.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


@contextmanager
def sole_use(output: str | os.PathLike[str]) -> Iterator[None]:
    """Lock an output file or folder, which need not exist, against other runs while the `with` block lasts.

    The operating system holds the lock, on a hidden file beside the output, and releases it when the process ends.

    Raises:
        ValueError: If another run holds the lock, or the folder above the output cannot be written to.
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
            file.unlink()  # while the lock is held; the next run makes a new file
        lock.release()


def reason(error: Exception) -> str:
    """Describe an error in one line of at most 300 characters, without the path, which the message names already."""
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split())[:300] or type(error).__name__
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or os.strerror(error.errno)


def counted(count: int, noun: str) -> str:
    """Return a count and its noun: `1 image`, `1,200 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- temporary names ---------------------------------------------------------------------------------------------


@contextmanager
def _temporary(place: Path, name: str, *, folder: bool) -> Iterator[Path]:
    """Make a hidden temporary file or folder, and remove it at the end if it is still there.

    Its name depends on the target alone, so that the next run finds what a killed run left; a lock tells whether the
    run that made it is still alive. If it is, or if the system has no locks, the name is unique instead.
    """
    hidden = f".{name}.tmp"
    if len(os.fsencode(hidden)) > LONGEST_NAME:
        hidden = f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.tmp"
    path = place / hidden
    make: Callable[[Path], None] = Path.mkdir if folder else partial(Path.touch, exist_ok=False)
    _remove_leftover(path)
    try:
        make(path)
    except FileExistsError:  # another run is writing the same target
        path = place / f".{uuid.uuid4().hex}.tmp"
        make(path)
    lock = _lock(path)
    try:
        yield path
    finally:
        _remove(path)
        if lock is not None:
            os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _remove_leftover(path: Path) -> None:
    """Remove a temporary file or folder if the run that made it has ended."""
    lock = _lock(path)
    if lock is not None:
        _remove(path)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a file or folder until the returned descriptor is closed; None if it is missing or cannot be locked."""
    if fcntl is None:
        return None
    try:
        # Do not follow a link, and do not wait for a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):  # it was not removed or renamed meanwhile
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


# --- the disk ----------------------------------------------------------------------------------------------------


def _make_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it, and sync them."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    folder = path.is_dir()
    try:
        # Windows syncs only what is open for writing, and no folders; other systems sync what is open for reading.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if folder:  # a folder that may be written to and not listed
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def _move_files(source: Path, target: Path) -> None:
    """Move all files of one folder to the same places in another, replacing existing ones."""
    changed = {target}
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        _make_folder(place.parent)
        os.replace(file, place)
        changed.add(place.parent)
    for folder in changed:
        _sync(folder)


def shown(value: object, length: int = 80) -> str:
    """Return `value` as one printable line of at most about `length` characters, for error messages."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        # Cut before repr: a hostile value may be megabytes long.
        text = repr(value[: length + 1])
    elif isinstance(value, float | int | None):
        text = repr(value)
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= length else text[: length - 4] + "...'"
