"""What the commands print beside their results."""

from __future__ import annotations

import warnings

import pytest

from sind_hf.cli import terminal


def test_a_warning_is_one_line_without_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back after the test
    with warnings.catch_warnings():
        terminal.quiet_libraries()
    assert warnings.formatwarning("two\nlines", UserWarning, __file__, 3) == "warning: two\\nlines\n"
