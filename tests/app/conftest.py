from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sind_hf import SindImageProcessor, SindModel
from sind_hf.app.judge import Judge
from sind_hf.app.reference import ReferenceScores


@pytest.fixture(scope="session")
def results_of() -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that reads the results that the page's script draws from HTML."""

    def read(html: str) -> list[dict[str, Any]]:
        found = re.search(r'data-results="([^"]*)"', html)
        assert found is not None, html
        return json.loads(unescape(found[1]))

    return read


def judge_of(model: SindModel) -> Judge:
    reference = ReferenceScores([place + 0.5 for place in range(100)])
    return Judge(model, SindImageProcessor(), name="tiny", reference=reference)


@pytest.fixture
def judge(make_tiny_model: Callable[[], SindModel]) -> Judge:
    """Return a judge on the scale 0 to 100 whose reference is the hundred scores 0.5, 1.5 … 99.5."""
    return judge_of(make_tiny_model())


@pytest.fixture
def example_folder(tmp_path: Path, draw: Any) -> Path:
    return drawn_examples(tmp_path, draw)


def drawn_examples(where: Path, draw: Any) -> Path:
    folder = where / "examples"
    folder.mkdir()
    for name, size in (("first", (300, 240)), ("second", (240, 300)), ("third", (260, 260))):
        draw(*size).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def broken_file(tmp_path: Path) -> str:
    """Return the path of a JPEG file that ends in the middle."""
    path = tmp_path / "broken.jpg"
    Image.effect_noise((300, 200), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


@pytest.fixture(scope="module")
def served(
    make_tiny_model: Callable[[], SindModel],
    draw: Any,
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Iterator[int],
) -> Iterator[str]:
    """Serve the page of a judge like `judge` in this process, and return its address."""
    pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")
    from sind_hf.app import build_app, launch_app

    examples = drawn_examples(tmp_path_factory.mktemp("served"), draw)
    page = build_app(judge_of(make_tiny_model()), examples=examples)
    yield launch_app(page, port=next(free_ports), block=False)
    page.close(verbose=False)
