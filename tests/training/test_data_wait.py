"""The share of the time spent waiting for data, measured by a clock that the tests set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from helpers.tiny_training import make_trainer
from sind_hf import SindTrainer
from sind_hf.training import callbacks


class Clock:
    """Seconds that pass only when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=clock))
    return clock


def test_share_starts_anew_each_time(clock: Clock) -> None:
    clock.now = 100.0  # time before the first batch does not count
    wait = callbacks.DataWait()
    with wait.fetching():
        clock.now += 3
    clock.now += 1
    assert wait.share() == pytest.approx(0.75)
    clock.now += 2
    assert wait.share() == 0
    with wait.fetching():
        clock.now += 1
    assert wait.share() == 1


def test_training_reports_it(tmp_path, images, clock: Clock) -> None:
    class Timed(SindTrainer):
        """Three seconds for the data of a step, one for its loss."""

        fetched = computed = 0

        def compute_loss(self, *args, **options):
            clock.now += 1
            self.computed += 1
            return super().compute_loss(*args, **options)

        def log(self, logs, start_time=None):
            super().log(logs, start_time)
            if "loss" in logs:
                expected = 3 * self.fetched / (3 * self.fetched + self.computed)
                assert logs["data_wait"] == pytest.approx(expected, abs=1e-4) and self.computed == 2
                self.fetched = self.computed = 0

    trainer = make_trainer(
        tmp_path, images, trainer_class=Timed, max_steps=4, logging_strategy="steps", logging_steps=2
    )

    def slow(samples, collate=trainer.data_collator):
        clock.now += 3
        trainer.fetched += 1
        return collate(samples)

    trainer.data_collator = slow
    trainer.train()
    assert sum("data_wait" in entry for entry in trainer.state.log_history) == 2
