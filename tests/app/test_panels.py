"""Verdicts as they are shown: numbers, words, tables."""

from __future__ import annotations

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from sind_hf.app import page, panels
from sind_hf.app.judge import Verdict
from sind_hf.app.panels import Scale

PLAIN = Scale((0, 100))
RANKED = Scale((1, 5), reference=1234)


def verdict(name="a.jpg", score=50.0, **known):
    grid = np.linspace(-1, 3, 49).reshape(7, 7)
    return Verdict(name, score, picture=Image.new("RGB", (70, 70), "grey"), quality_map=grid - grid.mean(), **known)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def table_of(html: str) -> list[dict[str, str]]:
    """The rows of the CSV file behind the link."""
    data = re.search(r'download="scores.csv" href="data:text/csv;base64,([^"]+)"', html)[1]
    return list(csv.DictReader(io.StringIO(base64.b64decode(data).decode("utf-8-sig"))))


def test_a_score_has_its_range_and_direction():
    text = text_of(panels.score_panel(verdict(score=62.345), PLAIN))
    assert "62.3 on a scale of 0 to 100; higher is better" in text and "0 worst 100 best" in text
    assert "reference" not in text
    text = text_of(panels.score_panel(verdict(score=-0.5), Scale(None)))
    assert "−0.500 on no declared range; higher is better" in text and "worst 0" not in text


@pytest.mark.parametrize(
    ("percentile", "words"), [(63.2, "Higher than 63 %"), (0.1, "less than 1 %"), (99.9, "more than 99 %")]
)
def test_a_percentile_is_a_sentence(percentile, words):
    text = text_of(panels.score_panel(verdict(score=3.0, percentile=percentile), RANKED))
    assert words in text and "of the 1,234 reference pictures." in text


def test_the_bar_stops_at_its_ends():
    assert "width:25.0%" in panels.score_panel(verdict(score=2.0), RANKED)
    beyond = panels.score_panel(verdict(score=5.5), RANKED)
    assert "width:100.0%" in beyond and "5.50" in beyond and "Outside the scale" in beyond


def test_the_legend_says_what_colours_mean():
    text = text_of(panels.score_panel(verdict(), PLAIN))
    assert "red: worse" in text and "blue: better" in text
    assert "like the worst part, its score would change by −2.00; like the best part, by +2.00." in text
    bare = Verdict("a.jpg", 50.0, picture=Image.new("RGB", (70, 70)))
    assert "makes no quality map" in panels.score_panel(bare, PLAIN)


def test_names_cannot_write_into_the_page():
    name = '<img src=x onerror="alert(1)">.jpg'
    both = [verdict(name, 60.0), verdict(name, 40.0)]
    failed = Verdict(name, error=f"{name}: is empty")
    for html in (
        panels.score_panel(both[0], PLAIN),
        panels.batch_panel([*both, failed], PLAIN),
        panels.comparison_panel(*both, PLAIN),
        panels.score_panel(failed, PLAIN),
    ):
        assert "onerror=&quot;" in html and "<img src=x" not in html


def test_a_table_is_sorted_and_its_file_is_not():
    failed = Verdict("c.jpg", error="c.jpg: not a picture in a known format")
    rows = [verdict("a.jpg", 2.0, percentile=10.0), failed, verdict("b.jpg", 4.0, percentile=90.0)]
    html = panels.batch_panel(rows, RANKED)
    text = text_of(html)
    assert "2 of 3 pictures scored" in text and "c.jpg: not a picture in a known format" in text
    assert text.index("b.jpg") < text.index("a.jpg") and "1 b.jpg 4.00 90 %" in text
    assert table_of(html) == [
        {"image": "a.jpg", "score": "2.0", "error": "", "percentile": "10.0"},
        {"image": "c.jpg", "score": "", "error": "c.jpg: not a picture in a known format", "percentile": ""},
        {"image": "b.jpg", "score": "4.0", "error": "", "percentile": "90.0"},
    ]
    assert list(table_of(panels.batch_panel([verdict(), verdict("d.jpg")], PLAIN))[0]) == ["image", "score", "error"]


def test_a_batch_of_failures_has_no_table():
    html = panels.batch_panel([Verdict("a.jpg", error="a.jpg: is empty"), Verdict("b.jpg", error="b.jpg: x")], PLAIN)
    assert "0 of 2 pictures scored" in html and "<table" not in html


def test_a_comparison_names_the_better_one():
    text = text_of(panels.comparison_panel(verdict("x.jpg", 40.0), verdict("y.jpg", 65.0), PLAIN))
    assert text.startswith("B looks better, by 25.0 points, 25 % of the scale")
    assert "A: x.jpg 40.0" in text and "B: y.jpg 65.0" in text and "Both maps share these colours" in text
    text = text_of(panels.comparison_panel(verdict("x.jpg", 40.01), verdict("y.jpg", 40.0), PLAIN))
    assert text.startswith("Both look equally good")
    html = panels.comparison_panel(verdict(), Verdict("y.jpg", error="y.jpg: is empty"), PLAIN)
    assert text_of(html) == "y.jpg: is empty"


def test_one_upload_gives_a_panel_and_several_a_table(judge, picture_files, broken_file):
    assert "<table" not in page.score_files(judge, picture_files[:1])
    html = page.score_files(judge, [*picture_files, broken_file])
    assert len(table_of(html)) == 6 and "5 of 6 pictures scored" in html
    assert "At most 100 at once" in page.score_files(judge, None)


def test_more_pictures_than_the_limit_are_refused(judge, picture_files):
    html = page.score_files(judge, picture_files[:1] * 101)
    assert text_of(html) == "101 pictures are more than the 100 that are scored at once: add fewer."


def test_a_comparison_waits_for_both(judge, picture_files):
    assert "Now add picture B." in page.compare_files(judge, picture_files[0], None)
    assert "Now add picture A." in page.compare_files(judge, None, picture_files[0])
    assert "looks better" in page.compare_files(judge, *picture_files[:2])
