"""The table of docs/how-to/export_to_onnx.md is made by a script that runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}, of the extra onnx")
    script = str(ROOT / "scripts/benchmarks/onnx_scoring.py")
    arguments = ["--backbone", "small ResNet", "--images", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr("sind_hf.distributed.keep_freed_memory", lambda: None)  # it would last for the whole process
    runpy.run_path(script, run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (ROOT / "docs/how-to/export_to_onnx.md").read_text(encoding="utf-8").splitlines()
    documented = [line for line in page if line.startswith(("| backbone", "| small ResNet"))]
    assert documented[0].startswith(lines[0])  # the documented table has --compile, too
    assert len(lines) == 2 + 2
    for line, shown in zip(lines[2:], documented[1:], strict=True):
        cells, others = ([cell.strip() for cell in each.strip("|").split("|")] for each in (line, shown))
        assert cells[:2] == others[:2]
        assert len(cells) == len(others) - 1
        assert all(float(cell.rstrip("ms ×")) > 0 for cell in cells[2:])
