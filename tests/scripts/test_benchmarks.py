"""The tables of docs/explanation/benchmarks.md are made by scripts that run, and that print what the page shows."""

from __future__ import annotations

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
        "--pictures",
        "8",
        "--size",
        "400",
        "300",
        "--workers",
        "0",
    ],
    "scoring": ["--pictures", "3", "6"],
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
