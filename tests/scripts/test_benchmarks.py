"""The tables of docs/explanation/benchmarks.md are made by scripts that run, and that print what the page shows."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/benchmarks.md").read_text(encoding="utf-8")
BENCHMARKS = ROOT / "scripts/benchmarks"
SMALL = ["--backbone", "vit-small", "--threads", "1"]
COMMANDS = {
    "views": ["--rounds", "1"],
    "prepared": ["--repeats", "1"],
    # Two scores would be too few for their deviation, against which the script measures the error of bfloat16.
    "train_step": [*SMALL, "--batch-size", "3", "--rounds", "1"],
    "epoch": [
        *SMALL,
        *["--batch-size", "4", "--steps", "1", "--images", "8", "--size", "400", "300", "--workers", "0"],
    ],
    "scoring": ["--images", "3"],
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run a script in this process, which has imported torch; the scripts import each other by their names."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    own = {path.stem: sys.modules.pop(path.stem, None) for path in BENCHMARKS.glob("*.py")}

    def run_script(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")

    yield run_script
    torch.set_num_threads(threads)
    for name, module in own.items():  # other scripts have modules of the same names
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_script_prints_the_table_of_the_page(
    name: str, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"python scripts/benchmarks/{name}.py" in PAGE
    run(name, *COMMANDS[name])
    header, _, *rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert header in PAGE.splitlines()
    assert rows and all(len(row.split("|")) == len(header.split("|")) for row in rows)


def test_every_process_of_the_start_is_timed(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: started.append(command[1:]))
    run("start_up", "--rounds", "2")
    header, _, *rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert header in PAGE.splitlines() and len(rows) == 4 and len(started) == 8
    assert ["-m", "sind_hf.cli", "--help"] in started


@pytest.mark.slow
def test_the_command_is_timed_against_a_plain_loop(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run("score_command", *["--count", "2", "--large", "0", "--rounds", "1", "--workers", "0"])
    _, _, row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["1024×768", "2"] and all(float(cell.rstrip("×")) > 0 for cell in cells[2:])


@pytest.mark.slow
def test_the_gpu_script_checks_itself(tmp_path: Path, run: Callable[..., None]) -> None:
    run("gpu", "--tiny", "--output", tmp_path / "gpu")
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    rows = [(title, row) for title, table in tables.items() for row in table]
    assert not [(title, row) for title, row in rows if "note" in row]
    assert {title: len(table) for title, table in tables.items()} == {
        "Equality of scores": 5,
        "Training through SindTrainer": 2,
        "Scoring": 4,
        "Training steps": 5,
        "Forward passes": 5,
    }
    assert all(row["equal"] for row in tables["Equality of scores"])
    assert all(row["images/s"] > 0 for title, row in rows if title != "Equality of scores")
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"## {title}" in text for title in tables) and text.count("\n| ") >= len(rows)


def test_without_a_gpu_or_time_the_gpu_script_says_so(tmp_path: Path, run: Callable[..., None]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit, match="error: torch finds no GPU"):
        run("gpu")
    import gpu

    def fail() -> dict[str, Any]:
        raise torch.OutOfMemoryError

    report = gpu.Report(tmp_path / "gpu", 0.0)
    report.measure("T", {"way": "a"}, 1.0, dict)
    report.end = float("inf")
    report.measure("T", {"way": "b"}, 1.0, fail)
    report.measure("T", {"way": "c"}, 1.0, dict)
    rows = json.loads((tmp_path / "gpu.json").read_text())["tables"]["T"]
    assert rows == [
        {"way": "a", "note": "not measured: no time left"},
        {"way": "b", "note": "out of memory"},
        {"way": "c"},
    ]


def test_the_wheels_for_a_gpu_machine_leave_out_torch() -> None:
    if shutil.which("sh") is None:
        pytest.skip("needs a shell")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["sh", str(ROOT / "scripts/benchmarks/gpu_wheels.sh"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True)
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"transformers", "huggingface-hub", "accelerate", "datasets", "pyarrow", "tokenizers"} <= names
    assert not [name for name in names if name.startswith(("torch", "nvidia", "triton"))]
