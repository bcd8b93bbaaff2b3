"""What processes share: the decisions of a distributed run, and the deaths of loader workers in words."""

from __future__ import annotations

import os
import re
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

# The words of torch.utils.data, which knows no exception of its own for this.
_DEATH = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)")
_NEWS_TIME = 1.0  # seconds within which the system tells of a death


def join_launch(device: str | None = None) -> None:
    """Meet the other processes, where `accelerate launch` or `torchrun` started this one among several.

    Args:
        device: What the process was told to compute on, see `load_checkpoint`.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        on_cpu = not torch.accelerator.is_available() if device is None else torch.device(device).type == "cpu"
        PartialState(cpu=on_cpu, timeout=PATIENCE)


def is_main_process() -> bool:
    """Whether this is the process that speaks for all; the only one always is."""
    return PartialState().is_main_process


def on_main_process(work: Callable[[], Result]) -> Result:
    """Do something in the main process and give its result, or its `ValueError`, to all.

    What is read from a disk decides how a run goes on, and other processes may be on machines with another disk, or
    look a moment later: only one of them may look.

    Args:
        work: Returns something that can be pickled.

    Raises:
        ValueError: In every process, when `work` raised one.
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
    """Keep other runs from an output folder; the main process holds the lock for all.

    Raises:
        ValueError: In every process, when another run has the folder or it cannot be written to.
    """
    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(sole_use(folder)))
        yield


def in_all(*counts: int) -> tuple[int, ...]:
    """Add up counts over all processes, each of which must call this; none returns before all have."""
    if PartialState().num_processes == 1:
        return counts
    return tuple(map(sum, zip(*gather_object([counts]), strict=True)))


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
