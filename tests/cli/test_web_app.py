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
    ],
)
def test_unusable_requests_end_with_one_line(run, tiny_checkpoint, tmp_path, options: list[str], expected: Any):
    pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")
    code, out, err = run("app", *(option.format(tmp=tmp_path, model=tiny_checkpoint) for option in options))
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err
