from __future__ import annotations

import csv
import json
import time
from contextlib import contextmanager

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.tiny_sets import make_config, make_set
from sind_hf import metrics
from sind_hf.experiments.records import load_records, read_scores
from sind_hf.experiments.runner import run_experiment, run_training


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for name in ("spaq", "livec"):
        path = root / "json" / name / "all.json"
        path.parent.mkdir(parents=True)
        make_set(root / "images", name, (0, 1, 2), 6).save(path)
    return root


def configured(tree, output, protocol="leave-one-out", train=("spaq",), test=(), training=None, **experiment):
    return make_config(
        output,
        tree / "images",
        data={"json_dir": str(tree / "json"), "train": list(train), "test": list(test)},
        training=training or {},
        experiment={"protocol": protocol, "name": "tiny", **experiment},
    )


class Stop(TrainerCallback):
    """Ends the program after some step, as a time limit would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Pause(TrainerCallback):
    """Event files are named by the second: one that is opened in the same second as another overwrites it."""

    def on_train_end(self, args, state, control, **kwargs):
        time.sleep(1.1)


class Folds:
    """Notes the folds that are worked on; stops in the one whose number is given."""

    def __init__(self, stop_in=None, step=5):
        self.titles, self.stop_in, self.step = [], stop_in, step

    @contextmanager
    def __call__(self, title):
        self.titles.append(title)
        yield [Stop(self.step)] if len(self.titles) - 1 == self.stop_in else []


@pytest.fixture(scope="module")
def straight(tree, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight") / "run"
    return output, run_experiment(configured(tree, output))


def test_every_fold_is_recorded(straight):
    output, records = straight
    names = ["test_for_100_Animal", "test_for_101_Cityscape", "test_for_102_Human"]
    assert [record["fold"] for record in records] == names
    assert load_records(output) == records
    record = records[1]
    assert record["protocol"] == "leave-one-out" and record["trained_on"] == ["spaq"]
    assert record["train_images"] == {"spaq": 12} and record["test_images"] == {"spaq": 6}
    assert record["steps"] == 6 and record["epochs"] == 2
    assert set(record["tests"]["spaq"]["by_scene"]) == {"Cityscape"}
    assert record["config"]["training"]["output_dir"].endswith("test_for_101_Cityscape")
    assert {"torch", "transformers", "sind_hf"} <= set(record["versions"])
    assert json.loads((output / "report.json").read_text())["protocol"] == "leave-one-out"


def test_metrics_are_those_of_the_scores_of_the_averaged_weights(straight):
    output, records = straight
    for record in records:
        scores = read_scores(output / record["fold"] / "scores_spaq.csv")
        assert len(scores.images) == len(set(scores.images)) == 6
        assert all(name.startswith("SPAQ/img") for name in scores.images)
        assert record["metrics"]["spaq"]["srcc"] == pytest.approx(metrics.srcc(scores.predictions, scores.targets))
        saved = load_file(output / record["fold"] / "model.safetensors")
        trained = load_file(output / record["fold"] / "checkpoint-6" / "training_weights.safetensors")
        assert any(not (saved[name] == trained[name]).all() for name in saved)


def test_finished_folds_are_not_run_again(straight, tree):
    output, records = straight
    watch = Folds()
    assert run_experiment(configured(tree, output), watch=watch) == records
    assert watch.titles == []


def test_interrupted_inside_a_fold_equals_straight(straight, tree, tmp_path):
    folds = Folds(stop_in=1, step=5)  # after the first epoch was saved, inside the second
    with pytest.raises(KeyboardInterrupt):
        run_experiment(configured(tree, tmp_path / "run"), watch=folds)
    assert len(load_records(tmp_path / "run")) == 1
    again = Folds()
    records = run_experiment(configured(tree, tmp_path / "run"), watch=again)
    assert [title.split(", ")[0] for title in again.titles] == [
        "tiny: test_for_101_Cityscape",
        "tiny: test_for_102_Human",
    ]
    assert [record["resumed_from"] for record in records] == [None, "checkpoint-3", None]
    for record, other in zip(records, straight[1], strict=True):
        scores = [
            read_scores(folder / record["fold"] / "scores_spaq.csv") for folder in (tmp_path / "run", straight[0])
        ]
        assert scores[0] == scores[1]
        assert record["metrics"]["spaq"]["plcc"] == other["metrics"]["spaq"]["plcc"]


def test_interrupted_after_training_equals_straight(straight, tree, tmp_path):
    output = tmp_path / "run"
    run_experiment(configured(tree, output, folds=["test_for_100_Animal"]))
    (output / "test_for_100_Animal" / "results.json").unlink()
    (output / "test_for_100_Animal" / "model.safetensors").unlink()
    (record,) = run_experiment(configured(tree, output, folds=["test_for_100_Animal"]))
    assert record["resumed_from"] == "checkpoint-6"
    folders = [root / "test_for_100_Animal" for root in (output, straight[0])]
    assert read_scores(folders[0] / "scores_spaq.csv") == read_scores(folders[1] / "scores_spaq.csv")
    saved, expected = (load_file(folder / "model.safetensors") for folder in folders)
    assert all((saved[name] == expected[name]).all() for name in expected)


def test_another_configuration_is_refused(straight, tree):
    output, _ = straight
    changed = configured(tree, output, training={"learning_rate": 2e-2})
    with pytest.raises(ValueError, match=r"training.learning_rate=0.01, this configuration has 0.02: choose") as error:
        run_experiment(changed)
    assert "\n" not in str(error.value)
    # How a run is watched, and which part of it is done, may change.
    run_experiment(configured(tree, output, training={"report_to": "none"}, folds=["test_for_102_Human"]))
    with pytest.raises(ValueError, match="is not empty"):
        run_experiment(configured(tree, output), resume=False)


def test_a_damaged_record_is_named(straight, tree, tmp_path):
    output = tmp_path / "run"
    (output / "test_for_100_Animal").mkdir(parents=True)
    (output / "test_for_100_Animal" / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json: cannot read this run record .*repair or remove it"):
        run_experiment(configured(tree, output))


def test_cross_set_is_evaluated_every_epoch(tree, tmp_path):
    config = configured(tree, tmp_path / "run", "cross-set", ["spaq"], ["spaq", "livec"])
    (record,) = run_experiment(config)
    assert list(record["metrics"]) == ["spaq", "livec"]
    for name in ("spaq", "livec"):
        history = record["history"]["tests"][name]
        assert [entry["epoch"] for entry in history] == [1, 2]
        assert history[-1]["srcc"] == record["metrics"][name]["srcc"]
        best = record["best_epoch_chosen_on_test_set"][name]
        assert best["srcc"] == max(entry["srcc"] for entry in history)
    assert [round(entry["epoch"]) for entry in record["history"]["loss"]] == [1, 2]


def test_other_protocols_are_evaluated_every_fifth_epoch_and_at_the_end(tree, tmp_path):
    config = configured(tree, tmp_path / "run", training={"num_train_epochs": 6}, folds=["test_for_100_Animal"])
    (record,) = run_experiment(config)
    assert [entry["epoch"] for entry in record["history"]["tests"]["spaq"]] == [5, 6]
    never = configured(tree, tmp_path / "never", folds=["test_for_100_Animal"], evaluate_every=0)
    assert [entry["epoch"] for entry in run_experiment(never)[0]["history"]["tests"]["spaq"]] == [2]


def test_seeds(tree, tmp_path):
    config = configured(tree, tmp_path / "run", "cross-set", ["spaq"], ["livec"], seeds=[0, 1])
    records = run_experiment(config)
    assert [record["seed"] for record in records] == [0, 1]
    scores = [read_scores(tmp_path / "run" / "spaq" / f"seed_{seed}" / "scores_livec.csv") for seed in (0, 1)]
    assert scores[0].images == scores[1].images and scores[0].predictions != scores[1].predictions
    with (tmp_path / "run" / "report.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]


def test_a_single_training_writes_the_same_record(tree, tmp_path):
    config = make_config(
        tmp_path / "run",
        tree / "images",
        data={"json_dir": str(tree / "json"), "train": ["spaq"], "hold_out_scenes": ["Human"]},
    )
    record = run_training(config)
    assert record == json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["train_images"] == {"spaq": 12} and record["test_images"] == {"spaq_held_out": 6}
    assert len(read_scores(tmp_path / "run" / "scores_spaq_held_out.csv").images) == 6


def test_metrics_reach_tensorboard(tree, tmp_path):
    pytest.importorskip("tensorboardX", reason='needs tensorboardX: pip install "sind-hf[dev]"')
    config = make_config(
        tmp_path / "run",
        tree / "images",
        data={"json_dir": str(tree / "json"), "train": ["spaq"], "hold_out_scenes": ["Human"]},
        training={"report_to": "tensorboard", "logging_steps": 1},
    )
    run_training(config, callbacks=[Pause()])
    files = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert len({path.parent for path in files}) == 1  # one run on the board, also with the final evaluation
    written = b"".join(path.read_bytes() for path in files)
    assert b"train/loss" in written and b"eval/spaq_held_out_srcc" in written
