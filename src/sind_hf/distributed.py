"""Distributed runs: the process group, decisions of the main process, and messages about dead loader processes."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from sind_hf.files import sole_use

Result = TypeVar("Result")

# A process may have to wait for the slowest one's share of a long job; one that died is noticed by the launcher.
PATIENCE = timedelta(days=30)

# The message of torch.utils.data, which has no exception class for this.
_DEATH = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)")
_NEWS_TIME = 1.0  # seconds to wait for the signal that reports a death

# Options of glibc's `mallopt`: no memory from `mmap`, nothing given back, and one arena for all threads.
_KEEP_FREED = ((-4, 0), (-1, -1), (-8, 1))  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors in this process, and in those that it forks, for the tensors that follow.

    Otherwise glibc returns a large tensor to the kernel as soon as it is freed, and the next one waits for new pages:
    up to half of the time of a network on a CPU. Does nothing if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    for option, value in _KEEP_FREED:
        mallopt(option, value)


def join_launch(device: str | None = None) -> None:
    """Join the process group if `accelerate launch` or `torchrun` started several processes.

    `device` is the one that the user chose for this process, see `load_checkpoint`.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        on_cpu = not torch.accelerator.is_available() if device is None else torch.device(device).type == "cpu"
        PartialState(cpu=on_cpu, timeout=PATIENCE)


def is_main_process() -> bool:
    """Tell whether this is the process that prints and writes files; a single process always is."""
    return PartialState().is_main_process


def on_main_process(work: Callable[[], Result]) -> Result:
    """Call a function in the main process and return its result, or raise its `ValueError`, in all processes.

    Processes may run on machines with different disks, or read a file at different times. If a file decides what a
    run does, only one process may read it.

    Args:
        work: Function to call; its result must be picklable.

    Raises:
        ValueError: In every process, if `work` raised one.
    """
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome = [work(), None]
        except ValueError as error:
            outcome = [None, str(error)]
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    return outcome[0]


@contextmanager
def only_run_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Lock an output folder against other runs; the main process holds the lock for all.

    Raises:
        ValueError: In every process, if another run holds the lock or the folder cannot be written to.
    """
    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(sole_use(folder)))
        yield


def in_all(*counts: int) -> tuple[int, ...]:
    """Add up counts over all processes. Every process must call this, and waits until all have."""
    if PartialState().num_processes == 1:
        return counts
    return tuple(map(sum, zip(*gather_object([counts]), strict=True)))


@contextmanager
def worker_deaths_named(kept: str) -> Iterator[None]:
    """Turn the death of a loader process inside the `with` block into an error of one line.

    Args:
        kept: End of the message: what happens to the finished work, and how to continue.

    Raises:
        ValueError: If a process died.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        death = worker_death(error) or _death_behind(error)
        if death is None:
            raise
        raise ValueError(f"{death}; {kept}.") from error


def worker_death(error: BaseException | None) -> str | None:
    """Describe the death of a loader process; return None for other errors."""
    how, died = None, False
    while isinstance(error, RuntimeError) and (found := _DEATH.search(str(error))):
        how, died = found[1] or how, True  # torch says "exited" of a death whose signal is in the error below
        error = error.__cause__ or error.__context__
    if not died:
        return None
    return f"A process that loads images has died ({how or 'no signal'}), perhaps out of memory; use fewer workers"


def _death_behind(error: BaseException) -> str | None:
    """Describe the death that broke a connection; torch reports it from a signal handler, which may run later."""
    if not isinstance(error, (ConnectionError, EOFError)):
        return None
    try:
        time.sleep(_NEWS_TIME)
    except RuntimeError as news:
        return worker_death(news)
    return None
