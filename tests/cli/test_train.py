"""`sind-hf train` and `sind-hf evaluate`: the whole path from images to a report, and what bad input gets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from scipy.stats import spearmanr

from sind_hf import Manifest, SindModel, bundled_checkpoint
from sind_hf.experiments.config import load_config
from sind_hf.experiments.runner import build_model


@pytest.mark.parametrize(("before", "after", "is_told"), [(0.82, 0.7, True), (0.7, 0.82, False), (None, 0.7, False)])
def test_a_training_that_makes_the_model_worse_says_so(
    run: Any, training_config: Any, monkeypatch: pytest.MonkeyPatch, before: float | None, after: float, is_told: bool
) -> None:
    record = {"name": "r", "steps": 6, "seconds": 1, "metrics": {"study": {"srcc": after}}, "tests": {"study": {}}}
    record |= {"before_training": {"study": {"srcc": before}}}
    monkeypatch.setattr("sind_hf.experiments.runner.run_training", lambda *_, **__: record)
    code, _, err = run("train", training_config)
    assert code == 0, err
    assert ("study: the SRCC fell from 0.820 to 0.700; try a lower learning_rate" in err) == is_told


def test_train_then_evaluate(run, training_config, study, tmp_path):
    code, out, err = run("train", training_config, "max_steps=6", "experiment.name=shorter")
    assert code == 0, err
    assert "shorter: 6 steps" in out and "study_held_out" in out
    assert "study_held_out: no figures within scenes, because its images belong to one scene" in err
    folder = tmp_path / "run"
    record = json.loads((folder / "results.json").read_text())
    assert (
        record["steps"] == 6
        and record["train_images"] == {"study": 16}
        and record["test_images"] == {"study_held_out": 8}
    )
    assert -1 <= record["metrics"]["study_held_out"]["srcc"] <= 1
    before = record["before_training"]["study_held_out"]
    assert f"before training {before['srcc']:.3f} {before['plcc']:.3f}" in " ".join(out.split())
    config = load_config(training_config)
    untrained, processor = build_model(config.model, "scale_shift", config.training.seed)
    held_out = [entry for entry in Manifest.load(study / "manifest.json").entries if entry.scene == "scene 2"]
    scores = untrained.eval().score([study / entry.image for entry in held_out], processor, views="center")
    assert before["srcc"] == pytest.approx(spearmanr(scores, [entry.score for entry in held_out]).statistic)
    card = (folder / "README.md").read_text()
    assert f"{record['metrics']['study_held_out']['srcc']:.4f}" in card
    assert {"sind_hf", "torch", "transformers"} <= set(record["versions"])
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["training"]["max_steps"] == 6 and resolved["experiment"]["name"] == "shorter"
    model = SindModel.from_pretrained(folder)
    # A range is declared exactly where the calibration put the scores on it; six steps may not be enough for that.
    assert (model.config.score_range is None) == (model.config.score_scale == 1)

    report = tmp_path / "report.json"
    code, out, err = run(
        "evaluate", "--model", folder, "--manifest", study / "manifest.json", "--image-root", study, "--output", report
    )
    assert code == 0, err
    assert "mean within 3 scenes" in out
    (dataset,) = json.loads(report.read_text())["datasets"]
    expected = spearmanr(dataset["predictions"], dataset["targets"]).statistic
    assert dataset["report"]["srcc"] == pytest.approx(expected, abs=1e-12)
    assert set(dataset["report"]["by_scene"]) == {"scene 0", "scene 1", "scene 2"}


def test_a_stopped_run_goes_on(run, training_config, tmp_path):
    assert run("train", "--config", training_config)[0] == 0
    straight = SindModel.from_pretrained(tmp_path / "run").state_dict()
    # As if stopped after two of four steps: the last checkpoint is gone.
    for path in sorted((tmp_path / "run" / "checkpoint-4").iterdir()):
        path.unlink()
    (tmp_path / "run" / "checkpoint-4").rmdir()
    (tmp_path / "run" / "model.safetensors").unlink()
    assert run("train", "--config", training_config, "--resume")[0] == 0
    resumed = SindModel.from_pretrained(tmp_path / "run").state_dict()
    assert all(value.equal(resumed[name]) for name, value in straight.items())


def test_a_new_run_does_not_begin_among_the_checkpoints_of_another(run, training_config, tmp_path):
    """An interruption would leave both, and resuming would take the later one, whosever it is."""
    assert run("train", "--config", training_config)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, out, err = run("train", "--config", training_config, "learning_rate=0.5")
    assert (code, out) == (2, "") and "already contains a run (results.json)" in err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "run/results.json").unlink()
    assert "already contains a run (checkpoint-4)" in run("train", "--config", training_config)[2]


def test_a_training_starts_from_the_bundled_checkpoint(run, training_config, study, tmp_path):
    document = yaml.safe_load(training_config.read_text())
    document["model"] = {"checkpoint": "bundled", "freeze_batch_norm": True}
    document["training"] |= {"max_steps": 1, "ema_decay": 0.0, "learning_rate": 0.0, "eval_views": "center"}
    training_config.write_text(yaml.safe_dump(document))
    code, _, err = run("train", training_config)
    assert code == 0, err
    start, trained = (SindModel.from_pretrained(path) for path in (bundled_checkpoint(), tmp_path / "run"))
    assert all(value.equal(trained.state_dict()[name]) for name, value in start.state_dict().items())


def test_what_costs_a_training_its_use_is_said_before_it(run, training_config, study, caplog):
    manifest = Manifest.load(study / "manifest.json")
    manifest.score = replace(manifest.score, range=None)
    manifest.save(study / "manifest.json")
    code, _, err = run("train", training_config, "max_steps=4", "warmup_steps=3", "save_strategy=no")
    assert code == 0, err
    expected = "no score range is declared, so the scores will not be calibrated: write training.score_range="
    assert expected in caplog.text
    assert "The warm-up takes 3 of the 4 steps, more than half of the training" in caplog.text


@pytest.mark.parametrize("kind", ["equal scores", "one image per scene"])
def test_a_metric_that_is_not_defined_is_shown_and_recorded_as_such(run, training_config, study, tmp_path, kind):
    manifest = Manifest.load(study / "manifest.json")
    for number, entry in enumerate(manifest.entries):
        change = {"score": 3.0} if kind == "equal scores" else {"scene": f"scene {number}", "domain_id": None}
        manifest.entries[number] = replace(entry, **change)
    manifest.save(study / "test.json")
    overrides = [f"data.test=[{study}/test.json]", "data.hold_out_scenes=[]", "max_steps=1"]
    code, out, err = run("train", "--config", training_config, *overrides)
    assert code == 0, err
    assert "not defined" in out
    assert ("each of its 24 scenes has one image" in err) == (kind == "one image per scene")
    (metrics,) = json.loads((tmp_path / "run/results.json").read_text())["metrics"].values()
    undefined = "srcc" if kind == "equal scores" else "within_scene_srcc"
    assert metrics[undefined] is None


def test_a_test_that_fails_leaves_the_trained_model(run, training_config, study, tmp_path):
    damaged = study / "images" / "02.png"  # of scene 2, which is held out
    damaged.write_bytes(damaged.read_bytes()[:500])
    code, _, err = run("train", "--config", training_config, "save_strategy=no", "eval_on_start=false")
    assert code == 2 and "02.png" in err.strip().splitlines()[-1]
    assert SindModel.from_pretrained(tmp_path / "run").config.score_scale > 0
    assert not (tmp_path / "run/results.json").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["scene_sampling=3"], "per_device_train_batch_size is 8, scene_sampling is 3"),
        (["scene_sampling=4"], "asks for 4 scenes per batch, but the column 'scene' holds 2"),
        (["loss_type=scale_shft"], "Did you mean 'scale_shift'?"),
        (["learning_rat=1"], "unknown key 'learning_rat'. Did you mean learning_rate?"),
        (["model.view_size=57"], "view_size"),
        (["data.hold_out_scenes=[scene 7]"], "no scene scene 7; there are scene 0, scene 1, scene 2"),
        (["data.train=[]"], "names no manifest"),
        (["data.train=[nowhere.json]"], "nowhere.json"),
        (["model.checkpoint=somewhere"], "exactly one of backbone, vision_config and checkpoint"),
        (["max_steps"], "overrides are written key=value"),
        (["--output_dir", "runs/x"], "write training.output_dir=runs/x"),
        (["resume_from_checkpoint=runs/x"], "resume_from_checkpoint is not supported: leave it out"),
    ],
)
def test_unusable_configurations_end_with_one_line(run, training_config, tmp_path, overrides, expected):
    code, out, err = run("train", "--config", training_config, *overrides)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_missing_images_and_bad_scores_stop_a_training(run, training_config, study):
    (study / "images" / "03.png").unlink()
    code, _, err = run("train", "--config", training_config)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "images/03.png" in err

    document = json.loads((study / "manifest.json").read_text())
    document["files"][5]["score"] = float("nan")
    (study / "manifest.json").write_text(json.dumps(document))
    code, _, err = run("train", "--config", training_config)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "manifest.json" in err and "NaN" in err


def test_a_damaged_training_image_is_named(run, training_config, study):
    path = study / "images" / "03.png"
    path.write_bytes(path.read_bytes()[:500])
    code, _, err = run("train", "--config", training_config)
    assert code == 2 and "03.png" in err.strip().splitlines()[-1] and "damaged" in err


def test_evaluate_names_what_it_left_out(run, training_config, study, tmp_path):
    assert run("train", "--config", training_config)[0] == 0
    (study / "images" / "03.png").write_bytes(b"not an image")
    report = tmp_path / "report.json"
    arguments = ["--manifest", study / "manifest.json", "--image-root", study, "--output", report]
    code, out, err = run("evaluate", "--model", tmp_path / "run", *arguments, "--views", "center")
    assert code == 1 and "left out: " in err and "03.png" in err
    (dataset,) = json.loads(report.read_text())["datasets"]
    assert dataset["report"]["n"] == len(Manifest.load(study / "manifest.json")) - 1 == len(dataset["predictions"])
    assert len(dataset["left_out"]) == 1
