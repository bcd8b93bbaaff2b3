from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> dict[str, Path]:
    """Ten drawn pictures that stand for photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    files = {}
    for number in range(10):
        files[f"p{number}"] = folder / f"p{number}.png"
        picture = draw(150 + 6 * number, 140)
        picture.transpose(Image.Transpose(number % 7)).save(files[f"p{number}"])
    return files
