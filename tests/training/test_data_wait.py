"""The share of time that waits for data: of slow data nearly all, and none where nothing is fetched."""

from __future__ import annotations

import time

import pytest
from tiny_training import make_trainer

from sind_hf.training.callbacks import DataWait


def test_share_starts_anew_each_time() -> None:
    wait = DataWait()
    with wait.fetching():
        time.sleep(0.05)
    time.sleep(0.05)
    assert wait.share() == pytest.approx(0.5, abs=0.2)
    time.sleep(0.02)
    assert wait.share() == 0


@pytest.mark.parametrize(("seconds", "low", "high"), [(0.2, 0.6, 1.0), (0.0, 0.0, 0.6)])
def test_training_reports_it(tmp_path, pictures, seconds, low, high) -> None:
    trainer = make_trainer(tmp_path, pictures, max_steps=4, logging_strategy="steps", logging_steps=2)

    def slow(samples, collate=trainer.data_collator):
        time.sleep(seconds)
        return collate(samples)

    trainer.data_collator = slow
    trainer.train()
    shares = [entry["data_wait"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(shares) == 2 and all(low <= share <= high for share in shares)
