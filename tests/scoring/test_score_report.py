from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from sind_hf import SindImageProcessor, SindModel
from sind_hf.scoring.images import LocatedImage
from sind_hf.scoring.report import LISTED, SHOWN, ReportSettings, extremes, histogram, summary_lines, write_report
from sind_hf.scoring.scorer import ScoredImage


def test_extremes_do_not_overlap() -> None:
    rows = [ScoredImage(str(number), float(number)) for number in range(5)] + [ScoredImage("bad", error="bad: no")]
    worst, best = extremes(rows)
    assert [row.image for row in worst] == ["0", "1"] and [row.image for row in best] == ["4", "3", "2"]
    worst, best = extremes([ScoredImage(str(number), float(number)) for number in range(200)])
    assert [row.image for row in worst] == [str(number) for number in range(SHOWN)]
    assert [row.image for row in best] == [str(199 - number) for number in range(SHOWN)]
    assert extremes([]) == ([], [])


def test_the_page_needs_nothing_else(tiny_model: SindModel, tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>.png", '"onload="x.png', "c\x1b[2J.png", "d & e.png"]
    images = {}
    for number, name in enumerate(names):
        file = tmp_path / f"{number}.png"
        Image.effect_noise((300, 200), 10 + 20 * number).convert("RGB").save(file)
        images[name] = LocatedImage(name, str(file))
    rows = [ScoredImage(name, float(number)) for number, name in enumerate(names)]
    rows += [ScoredImage(f"{number}.heic", error=f"<b>{number}.heic: HEIC") for number in range(LISTED + 2)]
    settings = ReportSettings("<model>", (0, 100), min_score=1.5)
    write_report(tmp_path / "r.html", rows, images, tiny_model, SindImageProcessor(), settings)
    page = (tmp_path / "r.html").read_text()
    assert page.count("<figure>") == 4 and page.count("data:image/jpeg;base64,") == 8  # images and maps
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page and "&lt;model&gt;" in page
    assert "&quot;onload=&quot;x.png" in page and "c\\x1b[2J.png" in page and "d &amp; e.png" in page
    assert page.count("<li>&lt;b&gt;") == LISTED and "and 2 more" in page
    assert "4 images scored; 2 below 1.5; 1,002 left out" in page
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import', page)
    order = [page.index(f"<b>{score}.00</b>") for score in (0, 1, 3, 2)]  # the worst, then the best
    assert order == sorted(order)


def test_a_page_without_maps_or_scores(tiny_model: SindModel, tmp_path: Path) -> None:
    rows = [ScoredImage("a.png", error="a.png: no such file")]
    write_report(tmp_path / "r.html", rows, {}, tiny_model, SindImageProcessor(), ReportSettings("m"))
    page = (tmp_path / "r.html").read_text()
    assert "no declared scale" in page and "a.png: no such file" in page and "<figure>" not in page


def test_one_image_is_counted_in_the_singular(tiny_model: SindModel, tmp_path: Path) -> None:
    write_report(
        tmp_path / "r.html", [ScoredImage("a.png", 1.0)], {}, tiny_model, SindImageProcessor(), ReportSettings("m")
    )
    assert "1 image scored;" in (tmp_path / "r.html").read_text()


def test_every_score_is_in_one_bin() -> None:
    bins = histogram([1, 1, 2, 3.5, 5])
    assert sum(count for *_, count in bins) == 5 and bins[0] == (1, 1.4, 2) and bins[-1][1:] == (5, 1)
    assert histogram([2.5, 2.5]) == [(2.5, 2.5, 2)]


def test_the_summary_counts_and_draws() -> None:
    scores = [float(number) for number in range(20)]
    lines = list(summary_lines(scores, 4.0, lambda score: 68.4 if score == 9.5 else 0.0))
    assert lines[:2] == [
        "4 of 20 images score below 4",
        "median 9.50, better than 68 % of the reference images",
    ]
    assert len(lines) == 12 and lines[2].split() == ["0.00", "to", "1.90", "2", "█" * 40]
    assert list(summary_lines([3.0])) == []
    assert list(summary_lines([3.0], 3.0)) == ["0 of 1 images score below 3"]
