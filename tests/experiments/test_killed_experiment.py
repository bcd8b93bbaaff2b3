"""`kill -9` in the middle of the second fold; the same command then ends where an uninterrupted run ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from helpers.processes import Command, start
from helpers.tiny_sets import make_config, make_set

FOLDS = ("test_for_100_Animal", "test_for_101_Cityscape")


def start_experiment(config: Path) -> Command:
    return start("sind_hf.cli", ["experiment", "leave-one-out", "-c", config], CUDA_VISIBLE_DEVICES="")


def finish(process: Command) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err


@pytest.mark.slow
def test_killed_and_started_again_equals_straight(tmp_path: Path) -> None:
    make_set(tmp_path / "images", "spaq", (0, 1, 2), 5).save(tmp_path / "spaq.json")
    configs = {}
    for name in ("straight", "killed"):
        config = make_config(
            tmp_path / name,
            tmp_path / "images",
            data={"train": [str(tmp_path / "spaq.json")]},
            training={"num_train_epochs": 12},
            experiment={"name": "tiny", "protocol": "leave-one-out", "folds": list(FOLDS)},
        )
        configs[name] = tmp_path / f"{name}.yaml"
        config.save(configs[name])

    second = tmp_path / "killed" / FOLDS[1]
    process = start_experiment(configs["killed"])
    while process.poll() is None and not list(second.glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / FOLDS[0] / "results.json").is_file()
    assert not (second / "results.json").exists()

    messages = finish(start_experiment(configs["killed"]))
    assert f"{FOLDS[1]}, seed 0 (2/2): done" in messages and FOLDS[0] not in messages
    finish(start_experiment(configs["straight"]))
    for table in ("report.csv", "report_summary.csv", "report.md"):
        assert (tmp_path / "killed" / table).read_text() == (tmp_path / "straight" / table).read_text()
