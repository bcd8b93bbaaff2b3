from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and published facts, which lies beside the repository and is never part of it."""
    named = os.environ.get("SIND_HF_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not folder.is_dir():
        if named:
            pytest.fail(f"SIND_HF_SHARED={named} is not a folder")
        pytest.skip(f"needs the real data in {folder}, or in the folder that SIND_HF_SHARED names")
    return folder
