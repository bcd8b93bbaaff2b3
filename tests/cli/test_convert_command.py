"""`sind-hf convert` as a user meets it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from helpers.published_networks import PublishedClip, as_open_clip, views, with_random_statistics

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = PublishedClip("patch", 64, 1, 32, heads=2)
    with_random_statistics(network)
    torch.save(network.state_dict(), tmp_path / "official.pth")
    return tmp_path / "official.pth"


def test_the_official_checkpoint_gives_the_stored_scores(run, shared: Path, tmp_path: Path) -> None:
    folder = shared / "reference/parity"
    config = ("--config", folder / "official_tiny_config.json")
    code, out, err = run("convert", folder / "official_tiny.pth", tmp_path / "out", *config)
    assert (code, err) == (0, "")
    assert "2 heads, quick_gelu" in out and "variant patch" in out and "--calibrate" in out
    stored = load_file(folder / "official_tiny_outputs.safetensors")
    model = AutoModel.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        found = model(stored["pixel_values"], stored["local_pixel_values"]).quality
    torch.testing.assert_close(found, stored["quality"], rtol=0, atol=1e-5)


def test_says_what_was_found_and_assumed(run, weights: Path, tmp_path: Path, image_files: list[str]) -> None:
    options = ("--num-attention-heads", 2, "--variant", "patch", "--view-size", 224)
    code, out, err = run("convert", weights, tmp_path / "out", *options)
    assert (code, err) == (0, "")
    for words in (
        "published SIND, CLIP",
        "1 layers of width 64",
        "32 + 64 numbers",
        "left out  clip_model.ln_final",
        "written to",
    ):
        assert words in out, out
    code, out, err = run("score", image_files[0], "--model", tmp_path / "out")
    assert code == 0 and "on no declared scale" in err


def test_a_fresh_head_is_announced(run, weights: Path, tmp_path: Path) -> None:
    clip = as_open_clip(torch.load(weights, weights_only=True))
    torch.save(clip, tmp_path / "clip.pth")
    code, out, _ = run("convert", tmp_path / "clip.pth", tmp_path / "out", "--num-attention-heads", 2)
    assert code == 0 and "The head is new" in out and "--calibrate" not in out
    with torch.inference_mode():
        assert AutoModel.from_pretrained(tmp_path / "out")(*views(1)).quality.shape == (1,)


def test_refusals_are_one_line_and_leave_nothing(run, weights: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    cases = [
        ((weights, full), "exists and is not an empty folder"),
        ((text, tmp_path / "out"), "damaged"),
        ((tmp_path / "gone.pth", tmp_path / "out"), "no such file"),
        ((weights, tmp_path / "out", "--variant", "class"), "not that of the variant 'class'"),
        ((weights, tmp_path / "out", "--hidden-act", "gelo"), "did you mean 'gelu'"),
        ((weights, tmp_path / "out", "--num-attention-heads", 3), "must divide"),
    ]
    for arguments, words in cases:
        code, out, err = run("convert", *arguments)
        assert (code, out) == (2, "") and words in err and len(err.strip().splitlines()) == 1, err
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    assert {path.name for path in tmp_path.iterdir()} == {"full", "text.pth", "official.pth"}


def test_the_script_is_the_command(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "scripts" / "convert_sind_original_to_hf.py"
    arguments = [str(script), str(weights), str(tmp_path / "out"), "--num-attention-heads", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert not stop.value.code
    assert "written to" in capsys.readouterr().out and (tmp_path / "out" / "model.safetensors").is_file()
