"""`sind-hf export`, and `score` and `evaluate` with what it makes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest


def scores(path: Path) -> list[float]:
    with open(path, newline="") as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


def test_export_then_score(run, exported, image_files, tmp_path, capsys):
    folder, path = exported("resnet").folder, tmp_path / "sind.onnx"
    capsys.readouterr()  # what making the checkpoint said
    path.write_bytes(b"an older file")
    code, out, err = run("export", folder, path)
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert re.match(rf"{path}: 0\.\d MB; its scores differ from PyTorch's by at most \d\.\de-\d\d on generated", line)
    assert [each.name for each in tmp_path.glob("*.onnx*")] == ["sind.onnx"]

    options = ("--views", "nine", "--output", tmp_path / "scores.csv")
    assert run("score", *image_files, "--model", folder, "--device", "cpu", *options)[0] == 0
    expected = scores(tmp_path / "scores.csv")
    code, out, err = run("score", *image_files, "--model", path, *options, "--quality-maps", tmp_path / "maps")
    assert (code, out) == (0, "") and "5 images scored" in err and "0 to 100" in err
    assert scores(tmp_path / "scores.csv") == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == 5 and len(list((tmp_path / "maps").iterdir())) == 5


def test_evaluate(run, exported, study, tmp_path):
    case = exported("resnet")
    reports = []
    for model in (case.folder, case.path):
        report = tmp_path / "report.json"
        arguments = ("--manifest", study / "manifest.json", "--image-root", study, "--output", report)
        code, out, _ = run("evaluate", "--model", model, *arguments)
        assert code == 0 and "study" in out
        reports.append(json.loads(report.read_text())["datasets"][0])
    torchs, onnxs = reports
    assert onnxs["predictions"] == pytest.approx(torchs["predictions"], abs=1e-4)
    assert onnxs["report"]["srcc"] == pytest.approx(torchs["report"]["srcc"], abs=1e-3)


def test_an_interrupted_job_is_continued_with_the_same_file_only(run, interrupt, exported, image_files, tmp_path):
    path, output = tmp_path / "sind.onnx", tmp_path / "scores.csv"
    shutil.copy(exported("resnet").path, path)
    arguments = ("score", *image_files, "--model", path, "--output", output, "--resume")
    interrupt(path, image_files, output, 1)
    assert run(*arguments)[0] == 0
    interrupt(path, image_files, output, 1)
    part = tmp_path / "scores.csv.part"
    settings, row = part.read_text().splitlines()
    part.write_text(f"{json.dumps(json.loads(settings) | {'weights': '0' * 64})}\n{row}\n")
    code, _, err = run(*arguments)
    assert code == 2 and "was made with other weights" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["score", "{image}", "--model", "{folder}/text.onnx"], "text.onnx: onnxruntime cannot load this file"),
        (["score", "{image}", "--model", "{folder}/gone.onnx"], "gone.onnx: there is no such file"),
        (["score", "{image}", "--model", "{onnx}", "--dtype", "float16"], "computes in float32: leave it out"),
        (["score", "{image}", "--model", "{onnx}", "--device", "mps"], "choose cpu or cuda"),
        (["export", "{onnx}", "{folder}/b.onnx"], "is an exported model, which can only score"),
        (["export", "{folder}/nowhere", "{folder}/b.onnx"], "nowhere: there is no such checkpoint folder"),
        (["export", "{checkpoint}", "{folder}/b.pt"], "b.pt: the file must end in .onnx"),
        (["export", "{checkpoint}", "{folder}/no/b.onnx"], "there is no folder"),
        (["export", "{checkpoint}"], "Missing argument 'output'"),
    ],
)
def test_unusable_requests_end_with_one_line(run, exported, image_files, tmp_path, arguments, expected):
    case = exported("resnet")
    (tmp_path / "text.onnx").write_text("no model")
    before = sorted(tmp_path.iterdir())
    names = {"image": image_files[0], "folder": tmp_path, "onnx": case.path, "checkpoint": case.folder}
    code, out, err = run(*(argument.format(**names) for argument in arguments))
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err
    assert sorted(tmp_path.iterdir()) == before
