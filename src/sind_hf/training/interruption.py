"""A training that is asked to end: it saves a checkpoint after the step that it is in, and says so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
