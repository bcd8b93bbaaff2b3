"""`sind-hf push`: what it says, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import WRITER, Hub
from huggingface_hub import constants
from run_folders import make_run

from sind_hf.hub.model_card import shown_size

REPO = "user/sind-tiny"
Answer = tuple[int, str, str]


def test_a_push_says_what_went_where(hub: Hub, checkpoint: Path, push: Callable[..., Answer]) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "sind-hf[eval]"')
    make_run(checkpoint)
    code, out, _ = push(checkpoint, "--repo-id", REPO, "--private", "--revision", "trial", "--message", "Try")
    assert code == 0 and hub.repositories[REPO].private
    assert out.splitlines()[0].startswith(f"11 files pushed to {REPO}: {hub.url}/{REPO}/commit/")
    assert out.splitlines()[1] == f"the card is {checkpoint}/README.md"
    assert hub.repositories[REPO].history("trial")[0].message == "Try"
    assert set(hub.files(REPO)) == {".gitattributes"}  # main is as it was made
    card = hub.files(REPO, "trial")["README.md"].decode()
    # Of the set whose scores are there, and of no other.
    assert card.count("![") == 2 and "(figures/koniq10k_held_out_scatter.png)" in card
    assert hub.files(REPO, "trial")["figures/koniq10k_held_out_scatter.png"].startswith(b"\x89PNG")


def test_a_card_of_ones_own_is_named(hub: Hub, checkpoint: Path, push: Callable[..., Answer]) -> None:
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    code, out, _ = push(checkpoint, "--repo-id", REPO)
    assert code == 0 and "README.md was pushed as it is" in out
    assert hub.files(REPO)["README.md"].endswith(b"Mine.\n")


def test_refusals_are_one_line_and_exit_with_2(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refusal(*arguments: object) -> str:
        code, out, err = push(*arguments)
        assert (code, out) == (2, "") and len(err.splitlines()) == 1 and err.startswith("error: ")
        return err

    assert "there is no such checkpoint folder" in refusal(tmp_path / "nowhere", "--repo-id", REPO)
    hub.failures["put"] = 500
    assert "could not take the upload (500)" in refusal(checkpoint, "--repo-id", REPO)
    hub.failures["put"] = 403
    assert "may not write there (403)" in refusal(checkpoint, "--repo-id", REPO)
    hub.failures.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_WrongWrongWrongWrong")
    assert "does not accept the token (401)" in refusal(checkpoint, "--repo-id", REPO)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "run `hf auth login`" in refusal(checkpoint, "--repo-id", REPO)
    (checkpoint / "results.json").write_text("{")
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert "results.json: cannot read this run record" in refusal(checkpoint, "--repo-id", REPO)


def test_a_dry_run_lists_files_sizes_and_the_card(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "sind-hf[eval]"')
    make_run(checkpoint)
    monkeypatch.delenv("HF_TOKEN")  # nobody need be logged in
    before = sorted(checkpoint.rglob("*"))
    code, out, _ = push(checkpoint, "--repo-id", REPO, "--dry-run", "--license", "mit")
    assert code == 0 and hub.requests == [] and sorted(checkpoint.rglob("*")) == before
    size = (checkpoint / "model.safetensors").stat().st_size
    assert f"model.safetensors {shown_size(size)}" in " ".join(out.split())
    assert "figures/koniq10k_held_out_scatter.png" in out and "license: mit" in out and "# sind-tiny" in out
    assert out.splitlines()[-1] == "Nothing was sent."
    code, _, err = push(checkpoint, "--repo-id", REPO, "--dry-run", "--space")
    assert code == 2 and "--dry-run is for pushing a model" in err


def test_a_failed_push_leaves_no_figures_behind(hub: Hub, checkpoint: Path, push: Callable[..., Answer]) -> None:
    make_run(checkpoint)
    before = sorted(checkpoint.rglob("*"))
    hub.failures["commit"] = 500
    assert push(checkpoint, "--repo-id", REPO)[0] == 2
    assert sorted(checkpoint.rglob("*")) == before
