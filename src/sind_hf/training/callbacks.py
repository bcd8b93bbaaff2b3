"""What watches a training: signals that ask it to end, its progress, and the time it waits for data."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A training that ended because a signal asked it to; everything is in its last checkpoint.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopOnSignal(TrainerCallback):
    """Stops after the current step, with a checkpoint, once SIGINT (Ctrl-C) or SIGTERM has come.

    Whoever sends SIGTERM waits for seconds: what else is due at the end of an epoch is left out, evaluations too.

    A second signal ends the process at once, as it would have without this. When one of several processes is asked,
    all of them stop after the same step.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals inside a `with` block; outside of the main thread, where none arrive, do nothing."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: FrameType | None) -> None:
            self.received = number
            signal.signal(number, before[signal.Signals(number)])

        for number, handler in before.items():
            if handler is not None and handler != signal.SIG_IGN:  # not ours to restore, or ignored on purpose
                signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for a checkpoint and for the end of the training, where a signal has come to any process."""
        if args.world_size > 1:
            number = torch.tensor(self.received or 0, device=args.device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            self.received = int(number) or None
        if self.received is not None:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for nothing more: the Trainer ends the epoch here wherever it was, and the checkpoint is saved."""
        if self.received is not None:
            control.should_save = control.should_evaluate = control.should_log = False


class TrainingProgress(TrainerCallback):
    """Reports every optimizer step to `update(done, total)`."""

    def __init__(self, update: Callable[[int, int], None]) -> None:
        self.update = update

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report one more step."""
        if state.is_world_process_zero:
            self.update(state.global_step, state.max_steps)


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
