"""The tables of docs/explanation/benchmarks.md are made by scripts that run, and that print what the page shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/benchmarks.md").read_text(encoding="utf-8")
SMALL = ["--backbone", "vit-small", "--threads", "1"]
COMMANDS = {
    "views": ["--rounds", "1"],
    "prepared": ["--repeats", "1"],
    # Two scores would be too few for their deviation, against which the script measures the error of bfloat16.
    "train_step": [*SMALL, "--batch-size", "8", "--rounds", "1"],
    "epoch": [
        *SMALL,
        "--batch-size",
        "4",
        "--steps",
        "1",
        "--images",
        "8",
        "--size",
        "400",
        "300",
        "--workers",
        "0",
    ],
    "scoring": ["--images", "3", "6"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_script_prints_the_table_of_the_page(name: str) -> None:
    script = ROOT / f"scripts/benchmarks/{name}.py"
    assert f"python scripts/benchmarks/{name}.py" in PAGE
    done = subprocess.run([sys.executable, str(script), *COMMANDS[name]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    header, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert header in PAGE.splitlines()
    assert rows and all(len(row.split("|")) == len(header.split("|")) for row in rows)


@pytest.mark.slow
def test_the_command_is_timed_against_a_plain_loop() -> None:
    command = [sys.executable, str(ROOT / "scripts/benchmarks/score_command.py"), "--count", "2", "--large", "0"]
    command += ["--rounds", "1", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    _, _, row = [line for line in done.stdout.splitlines() if line.startswith("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["1024×768", "2"] and all(float(cell.rstrip("×")) > 0 for cell in cells[2:])


@pytest.mark.slow
def test_the_gpu_script_checks_itself(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/benchmarks/gpu.py"), "--tiny", "--output", str(tmp_path / "gpu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
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


def test_without_a_gpu_or_time_the_gpu_script_says_so(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import gpu, pathlib\n"
    code += "report = gpu.Report(pathlib.Path(sys.argv[2]), 0.0)\n"
    code += "report.measure('T', {'way': 'a'}, 1.0, dict)\n"
    code += "report.end = float('inf')\n"
    code += "def fail(): raise torch.OutOfMemoryError\n"
    code += (
        "import torch; report.measure('T', {'way': 'b'}, 1.0, fail); report.measure('T', {'way': 'c'}, 1.0, dict)\n"
    )
    code += "sys.argv = ['gpu.py']\n"
    code += "gpu.main() if not torch.cuda.is_available() else sys.exit('error: torch finds no GPU')"
    command = [sys.executable, "-c", code, str(ROOT / "scripts/benchmarks"), str(tmp_path / "gpu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "error: torch finds no GPU" in done.stderr
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
