"""The facts of docs/reference/datasets.md are the catalog's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.catalog_table import markdown_table
from sind_hf.data.readers import READERS

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "datasets.md"


def test_the_documented_table_is_the_catalogs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"<!-- facts -->\n(.*)\n<!-- end of facts -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == markdown_table(), "print it anew: python -m sind_hf.data.manifests.catalog_table"


def test_a_line_says_what_the_catalog_knows() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(CATALOG)
    assert len({line.count(" | ") for line in lines}) == 1
    (live,) = [line for line in lines if line.startswith("| `live` |")]
    assert "| 982 | DMOS, -2.64 to 111.8 | lower | 5 distortions (700–704) | yes | technical |" in live
    (spaq,) = [line for line in lines if line.startswith("| `spaq` |")]
    assert "| 11,125 | MOS, 0 to 100 | higher | 9 scenes, chosen (100–108) | no | technical |" in spaq


@pytest.mark.parametrize("name", CATALOG)
def test_every_dataset_is_documented(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert f"sind-hf data build {name} --root" in text
    for spellings in READERS[name].labels.values():
        assert spellings[0].rsplit("/", 1)[-1] in text, f"the label file {spellings[0]} is not mentioned"
    for option in READERS[name].options:
        assert f"--option {option}=" in text
