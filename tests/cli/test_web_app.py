"""`sind-hf app`: what stops it before it serves."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def test_a_missing_extra_is_named(run, tiny_checkpoint, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else real(name, *rest)
    )
    code, out, err = run("app", "--model", tiny_checkpoint)
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1] == 'error: the web demo needs gradio; install it: pip install "sind-hf[app]"'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model", "{tmp}/nowhere"], "no such checkpoint folder"),
        (["--model", "{model}", "--reference", "{tmp}/nowhere.csv"], "nowhere.csv"),
        (["--model", "{model}", "--examples", "{tmp}/nowhere"], "no such folder of examples"),
        (["--model", "{model}", "--port", "99999"], "'--port'"),
        (["--model", "{model}", "--card", "card.md"], "the card 'card.md' is not a web address"),
    ],
)
def test_unusable_requests_end_with_one_line(run, tiny_checkpoint, tmp_path, options: list[str], expected: Any):
    pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")
    code, out, err = run("app", *(option.format(tmp=tmp_path, model=tiny_checkpoint) for option in options))
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--runtime", "{tmp}"], "--runtime belongs to a page of plain files: add --static"),
        (["--static", "{tmp}"], "exists and is not empty; choose another folder for the site"),
        (["--static", "{tmp}/site", "--runtime", "{tmp}"], "has no ort.wasm.bundle.min.mjs: name the npm package"),
        (["--static", "{tmp}/site", "--card", "card.md"], "the card 'card.md' is not a web address"),
    ],
)
def test_unusable_requests_for_a_static_page_end_with_one_line(
    run, tiny_checkpoint, tmp_path, options: list[str], expected: str
):
    pytest.importorskip("onnx", reason="needs onnx, of the extra `onnx`")
    given = (option.format(tmp=tmp_path, model=tiny_checkpoint) for option in options)
    code, out, err = run("app", "--model", tiny_checkpoint, *given)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
