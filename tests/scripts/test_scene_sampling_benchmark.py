"""The table of docs/explanation/scene_sampling.md."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry

ROOT = Path(__file__).parents[2]


def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    script = str(ROOT / "scripts/benchmarks/scene_sampling.py")
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(script, run_name="__main__")
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


def test_a_set_whose_numbers_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Four scenes of 130: at k=2 and n=64 each fills 5 groups of 32 with 30 draws again.
    entries = [
        ManifestEntry(f"{index}.jpg", 1.0, scene) for scene in "abcd" for index in [f"{scene}{i}" for i in range(130)]
    ]
    file = Manifest("four", entries).save(tmp_path / "four.json")
    lines = table(monkeypatch, capsys, file, "--epochs", 2)
    assert len(lines) == 2 + 4
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:7] == ["four", "2", "64", "10", "1.000", "520 of 520", "120 (23.1%)"]
    assert 0.3 < float(cells[7]) < 1


def test_the_documented_table(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared / "reference/data_json/all"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    lines = table(monkeypatch, capsys, folder / "spaq_all.json", folder / "koniq10k_all.json")
    page = (ROOT / "docs/explanation/scene_sampling.md").read_text(encoding="utf-8")
    assert lines == [line for line in page.splitlines() if line.startswith("|")]
