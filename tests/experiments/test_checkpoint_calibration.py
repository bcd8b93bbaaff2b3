from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sind_hf import SindConfig, SindModel
from sind_hf.experiments.checkpoint_calibration import calibrate_checkpoint, check_calibration
from sind_hf.experiments.evaluation import Evaluation


def evaluated(raw: list[float], targets: list[float], config: SindConfig) -> Evaluation:
    """An evaluation by a model whose raw scores are these."""
    scores = [config.score_scale * value + config.score_shift for value in raw]
    names = [f"{number}.png" for number in range(len(raw))]
    return Evaluation("study", {}, names, scores, targets, ["all"] * len(raw), [])


def test_the_line_is_of_the_raw_scores_and_nothing_else_changes(tiny_checkpoint: Path, tiny_model: SindModel) -> None:
    before = json.loads((tiny_checkpoint / "config.json").read_text())
    assert (before["score_scale"], before["score_shift"]) == (10, 50)
    raw = np.linspace(-1, 2, 9).tolist()
    targets = [0.5 * value + 2 for value in raw]
    done = calibrate_checkpoint(tiny_checkpoint, tiny_model.config, evaluated(raw, targets, tiny_model.config), (1, 5))
    after = json.loads((tiny_checkpoint / "config.json").read_text())
    assert after.pop("score_scale") == pytest.approx(0.5) and after.pop("score_shift") == pytest.approx(2)
    assert after.pop("score_range") == [1, 5]
    assert after == {name: value for name, value in before.items() if name in after}
    assert done.stored and done.rmse[0] > 40 and done.rmse[1] == pytest.approx(0, abs=1e-9)
    assert (tiny_model.config.score_scale, tiny_model.config.score_range) == (pytest.approx(0.5), [1, 5])
    loaded = SindModel.from_pretrained(tiny_checkpoint).config
    assert (loaded.score_scale, list(loaded.score_range or ())) == (pytest.approx(0.5), [1, 5])
    assert not list(tiny_checkpoint.glob("*.tmp"))
    lines = " ".join(done.summary())
    assert "0.5 · raw +2" in lines and "1 to 5" in lines and "higher is better" in lines


def test_a_second_calibration_gives_the_same(tiny_checkpoint: Path, tiny_model: SindModel) -> None:
    raw, targets = [0.1, 0.2, 0.5, 0.9], [2.0, 1.0, 4.0, 5.0]
    config = tiny_model.config
    first = calibrate_checkpoint(tiny_checkpoint, config, evaluated(raw, targets, config), None)
    second = calibrate_checkpoint(tiny_checkpoint, config, evaluated(raw, targets, config), None)
    assert second.calibration.scale == pytest.approx(first.calibration.scale)
    assert second.calibration.shift == pytest.approx(first.calibration.shift)
    assert second.rmse[0] == pytest.approx(second.rmse[1])
    assert json.loads((tiny_checkpoint / "config.json").read_text())["score_range"] is None
    assert "declares no range" in second.summary()[0]


@pytest.mark.parametrize(("targets", "reason"), [([3.0, 2.0, 1.0], "do not rise"), ([2.0, 2.0, 2.0], "do not rise")])
def test_a_line_that_does_not_rise_is_not_kept(
    tiny_checkpoint: Path, tiny_model: SindModel, targets: list[float], reason: str
) -> None:
    before = (tiny_checkpoint / "config.json").read_bytes()
    evaluation = evaluated([0.0, 1.0, 2.0], targets, tiny_model.config)
    done = calibrate_checkpoint(tiny_checkpoint, tiny_model.config, evaluation, (1, 5))
    assert not done.stored and reason in str(done.reason)
    assert (tiny_checkpoint / "config.json").read_bytes() == before
    assert tiny_model.config.score_scale == 10
    (line,) = done.summary()
    assert "not calibrated" in line and "stays as it was" in line
    flat = replace(evaluation, predictions=[60.0, 60.0, 60.0], targets=[1.0, 2.0, 3.0])
    assert "constant" in str(calibrate_checkpoint(tiny_checkpoint, tiny_model.config, flat, None).reason)


def test_an_interrupted_write_leaves_the_old_file(
    tiny_checkpoint: Path, tiny_model: SindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tiny_checkpoint / "config.json").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    evaluation = evaluated([0.0, 1.0], [1.0, 2.0], tiny_model.config)
    with pytest.raises(KeyboardInterrupt):
        calibrate_checkpoint(tiny_checkpoint, tiny_model.config, evaluation, None)
    assert (tiny_checkpoint / "config.json").read_bytes() == before


def refused(path: object, words: str, manifests: int = 1) -> None:
    with pytest.raises(ValueError, match=words) as error:
        check_calibration(str(path), manifests)
    assert "\n" not in str(error.value)


def test_what_cannot_be_kept_is_refused_first(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set(os.listdir(tiny_checkpoint))
    check_calibration(str(tiny_checkpoint), 1)
    assert set(os.listdir(tiny_checkpoint)) == names
    refused(tiny_checkpoint, "exactly one --manifest, got 2", manifests=2)
    refused("someone/sind-clip", "Hub repository.*hf download someone/sind-clip")
    refused(tmp_path / "gone", "no such checkpoint folder")
    refused("gone", "no such checkpoint folder")
    refused(tiny_checkpoint / "config.json", "no such checkpoint folder")
    tiny_checkpoint.chmod(0o555)
    try:
        refused(tiny_checkpoint, "read-only")
    finally:
        tiny_checkpoint.chmod(0o755)

    def full(**_: object) -> None:  # a mount that is read-only, whatever the mode says
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    refused(tiny_checkpoint, "read-only")
