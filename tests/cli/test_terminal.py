"""What the commands print beside their results."""

from __future__ import annotations

import warnings

import pytest

from sind_hf.cli import terminal


def test_a_warning_is_one_line_without_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back after the test
    with warnings.catch_warnings():
        terminal.quiet_libraries()
        warnings.showwarning("two\nlines", UserWarning, __file__, 3)
    assert capsys.readouterr().err == "warning: two\\nlines\n"
