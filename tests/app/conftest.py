from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sind_hf import SindImageProcessor, SindModel
from sind_hf.app.judge import Judge
from sind_hf.app.reference import ReferenceScores


@pytest.fixture
def judge(tiny_model: SindModel) -> Judge:
    """A judge on the scale 0 to 100 whose reference is the hundred scores 0.5, 1.5 … 99.5."""
    reference = ReferenceScores([place + 0.5 for place in range(100)])
    return Judge(tiny_model, SindImageProcessor(), name="tiny", reference=reference)


@pytest.fixture
def example_folder(tmp_path: Path, draw: Any) -> Path:
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, size in (("first", (300, 240)), ("second", (240, 300)), ("third", (260, 260))):
        draw(*size).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def broken_file(tmp_path: Path) -> str:
    """A JPEG file that ends in the middle."""
    path = tmp_path / "broken.jpg"
    Image.effect_noise((300, 200), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


@pytest.fixture
def served(judge: Judge, example_folder: Path, free_port: int) -> Iterator[str]:
    """The address of the page, served by this process."""
    pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")
    from sind_hf.app import build_app, launch_app

    page = build_app(judge, examples=example_folder)
    yield launch_app(page, port=free_port, block=False)
    page.close(verbose=False)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
