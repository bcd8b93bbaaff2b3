"""Watchers of a training: signals, progress, the time spent waiting for data, and the scores of training images."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sind_hf import metrics

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Raised when a signal, whose number is `signal`, has ended a training; its last checkpoint holds everything."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint and stops after the current step once SIGINT (Ctrl-C) or SIGTERM has arrived.

    The sender of SIGTERM waits for a few seconds only, so evaluations and other work at the end of an epoch are left
    out. A second signal ends the process at once, as it would without this callback. If one of several processes
    receives a signal, all of them stop after the same step.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside a `with` block; other threads than the main one receive none."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: FrameType | None) -> None:
            self.received = number
            signal.signal(number, before[signal.Signals(number)])

        for number, handler in before.items():
            if handler is not None and handler != signal.SIG_IGN:  # set outside Python, or ignored on purpose
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
        """Ask for a checkpoint and for the end of the training if any process has received a signal."""
        if args.world_size > 1:
            number = torch.tensor(self.received or 0, device=args.device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            self.received = int(number) or None
        if self.received is not None:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Cancel what is due at the end of an epoch: the Trainer calls this wherever it stops, after saving."""
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
    """Measures the share of the time spent fetching batches, since the first batch or since the last call of `share`.

    A GPU computes while the next batch is fetched, so this is an upper bound of the time that the GPU is idle.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._since: float | None = None

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Count the time inside a `with` block as waiting."""
        started = time.perf_counter()
        if self._since is None:
            self._since = started
        yield
        self._waited += time.perf_counter() - started

    def share(self) -> float:
        """Return the share, 0 to 1, and start again."""
        now = time.perf_counter()
        since = now if self._since is None else self._since
        share = self._waited / max(now - since, 1e-9)
        self._waited, self._since = 0.0, now
        return min(share, 1.0)


class TrainingScores:
    """Collects the scores of the training images, whose correlations are logged as in the published code.

    The scores are those that the loss sees: random views, and weights that change from batch to batch.
    """

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def add(self, quality: Tensor, labels: Tensor) -> None:
        """Add one batch of scores, (B,), and opinion scores, (B,)."""
        pairs = torch.stack((quality.detach().float(), labels.to(quality.device).float()), dim=1)
        self._batches.append(pairs)

    def correlations(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return `train_srcc` and `train_plcc` of what was added, and start again.

        `gather` joins a tensor of (n, 2) numbers over all processes, each of which must call this. The result is empty
        if there are no scores, or they are constant or not finite.
        """
        if not self._batches:
            return {}
        quality, labels = gather(torch.cat(self._batches)).cpu().double().numpy().T
        self._batches.clear()
        if not np.isfinite(quality).all() or np.ptp(quality) == 0 or np.ptp(labels) == 0:
            return {}
        return {"train_srcc": metrics.srcc(quality, labels), "train_plcc": metrics.plcc(quality, labels)}
