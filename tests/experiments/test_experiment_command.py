"""`sind-hf experiment` and `sind-hf evaluate --plots`, as a shell sees them."""

from __future__ import annotations

import sys

import pytest

from helpers.tiny_sets import make_config, make_set
from sind_hf import cli


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    path = root / "json" / "spaq" / "all.json"
    path.parent.mkdir(parents=True)
    make_set(root / "images", "spaq", (0, 1, 2), 5).save(path)
    return root


@pytest.fixture
def shell(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sind-hf", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code, printed.out, printed.err

    return run


def write_config(tree, output):
    config = make_config(
        output,
        tree / "images",
        data={"json_dir": str(tree / "json"), "train": ["spaq"]},
        experiment={"name": "tiny", "protocol": "leave-one-out"},
    )
    config.save(output.with_suffix(".yaml"))
    return output.with_suffix(".yaml")


def test_experiment_and_evaluation_of_its_checkpoint(tree, tmp_path, shell):
    output = tmp_path / "run"
    config = write_config(tree, output)
    code, out, err = shell("experiment", "leave-one-out", config, "--dry-run")
    assert code in (0, None) and not output.exists()
    assert "test_for_102_Human" in out and "spaq 10" in out and "spaq 5" in out

    code, out, err = shell("experiment", "leave-one-out", "-c", config, "num_train_epochs=1")
    assert code in (0, None), err
    assert "0.861 mean" in out  # the published figure beside ours
    assert "test_for_100_Animal, seed 0 (1/3): done" in err
    assert "{'" not in out  # the Trainer's own lines
    names = {path.name for path in output.iterdir()}
    assert {"config.yaml", "report.json", "report.csv", "report.md", "report.tex", "figures"} <= names
    assert len(list((output / "figures").glob("training_*.png"))) == 3

    code, out, err = shell("experiment", "leave-one-out", "-c", config)
    assert code == 2 and err.count("\n") == 1 and "training.num_train_epochs=1" in err
    code, out, err = shell("experiment", "cross-set", "-c", config)
    assert code == 2 and "for the protocol leave-one-out, not for cross-set: write `sind-hf experiment" in err

    model = output / "test_for_100_Animal"
    arguments = ["--model", model, "--manifest", tree / "json" / "spaq" / "all.json", "--image-root", tree / "images"]
    code, out, err = shell("evaluate", *arguments, "--views", "center", "--plots", tmp_path / "plots")
    assert code in (0, None), err
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {"spaq_scatter.png", "spaq_scenes.png", "spaq_distributions.png"}
    assert out.count("figure written to") == 3

    (tmp_path / "taken").write_text("a file")
    for plots, more, expected in (
        (tmp_path / "taken", (), "taken: cannot create this folder"),
        (tmp_path / "twice", arguments[2:4], "figures of two datasets would be named spaq"),
    ):
        code, out, err = shell("evaluate", *arguments, *more, "--plots", plots)
        assert code == 2 and expected in err and "SRCC" not in out  # before anything was scored


def test_help_has_an_example(shell):
    code, out, _ = shell("experiment", "--help")
    assert code in (0, None) and "Example" in out and "leave-one-out" in out
