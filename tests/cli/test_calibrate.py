"""`sind-hf evaluate --calibrate`: from scores on no scale to scores on that of a dataset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

from sind_hf import Manifest, SindImageProcessor, SindModel
from sind_hf.app.judge import Judge
from sind_hf.app.panels import Scale
from sind_hf.hub.model_card import model_card
from sind_hf.hub.model_facts import facts_from_folder


@pytest.fixture
def uncalibrated(tiny_checkpoint: Path) -> Path:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config |= {"score_scale": 1.0, "score_shift": 0.0, "score_range": None}
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    return tiny_checkpoint


def raw_scores(folder: Path, study: Path) -> list[float]:
    model = SindModel.from_pretrained(folder)
    files = [str(study / entry.image) for entry in Manifest.load(study / "manifest.json").entries]
    return model.score(files, SindImageProcessor())


def scored_like(study: Path, raw: list[float], file: str, slope: float, **score: object) -> Path:
    """The manifest of the study with opinion scores that are a line of a model's raw scores, noise added."""
    manifest = Manifest.load(study / "manifest.json")
    noise = np.random.default_rng(0).normal(0, 0.01, len(raw))
    entries = [
        replace(entry, score=float(3 + slope * value + add))
        for entry, value, add in zip(manifest.entries, raw, noise, strict=True)
    ]
    path = study / file
    replace(manifest, entries=entries, score=replace(manifest.score, range=(-100, 100), **score)).save(path)
    return path


def test_scores_are_on_the_scale_everywhere(run, uncalibrated: Path, study: Path) -> None:
    raw = raw_scores(uncalibrated, study)
    files = [str(study / entry.image) for entry in Manifest.load(study / "manifest.json").entries][:4]
    code, _, err = run("score", *files, "--model", uncalibrated)
    assert code == 0 and "higher is better, on no declared scale" in err

    manifest = scored_like(study, raw, "line.json", 2.0)
    arguments = ("--manifest", manifest, "--image-root", study, "--views", "center", "--calibrate")
    code, out, err = run("evaluate", "--model", uncalibrated, *arguments)
    assert code == 0, err
    assert "calibrated: score = " in out and "on the scale -100 to 100" in out and "before" in out
    config = json.loads((uncalibrated / "config.json").read_text())
    assert config["score_scale"] == pytest.approx(2, rel=0.02) and config["score_shift"] == pytest.approx(3, abs=0.05)
    assert config["score_range"] == [-100, 100]

    expected = [config["score_scale"] * value + config["score_shift"] for value in raw[:4]]
    code, out, err = run("score", *files, "--model", uncalibrated)
    assert code == 0
    assert [float(line.split()[0]) for line in out.splitlines()] == pytest.approx(expected, abs=1e-3)
    assert err.count("higher is better, on the scale -100 to 100") == 1
    model = SindModel.from_pretrained(uncalibrated)
    assert model.score(files, SindImageProcessor()) == pytest.approx(expected, abs=1e-3)
    answers = pipeline("image-quality-assessment", model=str(uncalibrated))(files)
    assert [answer["score"] for answer in answers] == pytest.approx(expected, abs=1e-3)
    assert all(answer["score_range"] == [-100, 100] and answer["higher_is_better"] is True for answer in answers)
    card = model_card(facts_from_folder(uncalibrated), "user/sind").text
    assert "| direction | higher is better, always |" in card and "| range | -100 to 100 |" in card
    judge = Judge.load(str(uncalibrated), device="cpu")
    assert Scale.of(judge).in_words() == "on a scale of -100 to 100; higher is better"
    assert [verdict.score for verdict in judge.verdicts(files)] == pytest.approx(expected, abs=1e-3)


def test_lower_is_better_is_turned_around(run, uncalibrated: Path, study: Path) -> None:
    raw = raw_scores(uncalibrated, study)
    manifest = scored_like(study, raw, "dmos.json", -2.0, name="DMOS", higher_is_better=False)
    arguments = ("--manifest", manifest, "--image-root", study, "--views", "center", "--calibrate")
    code, out, err = run("evaluate", "--model", uncalibrated, *arguments)
    assert code == 0 and "on the scale 0 to 200" in out, err
    config = json.loads((uncalibrated / "config.json").read_text())
    assert config["score_scale"] == pytest.approx(2, rel=0.02) and config["score_shift"] == pytest.approx(97, abs=0.05)


def test_a_model_that_orders_the_other_way_stays_as_it_is(run, uncalibrated: Path, study: Path) -> None:
    manifest = scored_like(study, raw_scores(uncalibrated, study), "turned.json", -2.0)
    before = (uncalibrated / "config.json").read_bytes()
    arguments = ("--manifest", manifest, "--image-root", study, "--views", "center", "--calibrate")
    code, out, err = run("evaluate", "--model", uncalibrated, *arguments)
    assert code == 1 and "not calibrated: the raw scores do not rise" in out and "Warning" not in err
    assert (uncalibrated / "config.json").read_bytes() == before


def test_refused_before_anything_is_scored(
    run, uncalibrated: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*_: object, **__: object) -> None:
        raise AssertionError("an image was scored")

    monkeypatch.setattr(SindModel, "score_stream", scored)
    manifest = ("--manifest", study / "manifest.json")
    root = ("--image-root", study, "--calibrate")
    uncalibrated.chmod(0o555)
    try:
        answers = [run("evaluate", "--model", uncalibrated, *manifest, *root)]
    finally:
        uncalibrated.chmod(0o755)
    answers.append(run("evaluate", "--model", "someone/sind-clip", *manifest, *root))
    answers.append(run("evaluate", "--model", uncalibrated, *manifest, *manifest, *root))
    for (code, out, err), words in zip(answers, ("read-only", "Hub repository", "exactly one"), strict=True):
        assert (code, out) == (2, "") and words in err and len(err.strip().splitlines()) == 1
