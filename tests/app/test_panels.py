"""What the page with a server says: words, facts, and results as HTML."""

from __future__ import annotations

import base64
import io
import re
from html import unescape
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sind_hf.app import page, panels
from sind_hf.app.judge import Judge, Verdict
from sind_hf.app.panels import Scale
from sind_hf.app.reference import ReferenceScores
from sind_hf.bundled import bundled_checkpoint, percentile, reference_scores

QUARTERS = Scale((1, 5), (2.0, 3.0, 4.0))


def verdict(name: str = "a.jpg", score: float = 50.0, **known: Any) -> Verdict:
    grid = np.linspace(-1, 3, 49).reshape(7, 7)
    return Verdict(name, score, image=Image.new("RGB", (70, 35), "gray"), quality_map=grid - grid.mean(), **known)


def stub(score_range: list[float] | None, reference: list[float] | None = None, **options: Any) -> Any:
    """Return what the words need of a judge."""
    config = SimpleNamespace(score_range=score_range, view_size=112)
    scores = None if reference is None else ReferenceScores(reference)
    known = {"name": "a <b>", "views": "center", "bundled": False, **options}
    return SimpleNamespace(model=SimpleNamespace(config=config), reference=scores, **known)


@pytest.mark.parametrize(
    ("score_range", "score", "shown"),
    [([0, 100], 62.345, "62.3"), ([1, 5], 3.524, "3.52"), ([-1, 1], -0.1234, "−0.12"), (None, -0.5, "−0.500")],
)
def test_scores_have_three_figures_of_their_range(score_range: Any, score: float, shown: str) -> None:
    assert Scale.of(stub(score_range)).shown(score) == shown


def test_words_are_the_quarters_of_the_reference_scores() -> None:
    scale = Scale.of(stub([0, 100], [place + 0.5 for place in range(40)]))
    assert scale.limits == pytest.approx((10.25, 20.0, 29.75))
    assert [scale.word(score) for score in (5, 10.3, 20.0, 29.7, 35)] == ["poor", "fair", "good", "good", "excellent"]
    assert "four quarters of the scores of 40 reference images" in str(scale.words_explained())


def test_words_are_the_quarters_of_the_scale_without_many_reference_scores() -> None:
    for reference in (None, [10.0, 20.0, 30.0]):
        scale = Scale.of(stub([0, 100], reference))
        assert scale.limits == (25, 50, 75) and "quarters of the scale" in str(scale.words_explained())
    bare = Scale.of(stub(None))
    assert bare.word(3.0) is None and bare.words_explained() is None
    assert panels.page_facts(stub(None))["bands"] == []


def test_words_and_percentiles_of_the_bundled_checkpoint_come_from_its_reference_scores() -> None:
    judge = Judge.load(bundled_checkpoint(), device="cpu")
    scores = reference_scores()
    facts = panels.page_facts(judge)
    assert facts["reference_size"] == len(scores) == len(judge.reference or ())
    assert [band["word"] for band in facts["bands"]] == ["poor", "fair", "good", "excellent"]
    assert [band["least"] for band in facts["bands"]][1:] == pytest.approx(
        list(np.quantile(scores, (0.25, 0.5, 0.75)))
    )
    assert judge.reference is not None
    between = (scores[100] + scores[101]) / 2
    assert judge.reference.percentile(between) == pytest.approx(percentile(between), abs=1)
    assert "It judges sharpness, noise and compression, not taste." in panels.caption(judge)
    assert Judge.load(bundled_checkpoint(), views="nine", device="cpu").reference is None


def test_the_caption_names_the_model_its_scale_and_what_it_judges() -> None:
    text = panels.caption(stub([0, 100]))
    assert text.startswith("Scores by the SIND model “a <b>”, on a scale of 0 to 100; higher is better.")
    assert "taste" not in text and "no declared range; higher is better" in panels.caption(stub(None))


def test_links_lead_to_the_card_the_paper_the_code_and_the_limits() -> None:
    html = panels.links("https://example.org/?a=1&b=2")
    addresses = [unescape(address) for address in re.findall('href="([^"]*)"', html)]
    assert addresses == ["https://example.org/?a=1&b=2", panels.PAPER, panels.CODE, "#limits"]
    assert "Model card" not in panels.links() and 'id="limits"' in panels.limits(stub([0, 100]))
    assert "336 pixels" in panels.limits(stub([0, 100])) and "nine pairs" in panels.limits(stub(None, views="nine"))


def test_a_model_of_the_hub_has_the_card_of_its_repository(tmp_path: Any) -> None:
    assert panels.card_address("user/model", None) == "https://huggingface.co/user/model"
    assert panels.card_address(str(tmp_path), None) is panels.card_address("bundled", None) is None
    with pytest.raises(ValueError, match="'javascript:alert' is not a web address: begin it with https://"):
        panels.card_address("user/model", "javascript:alert")


def test_a_result_has_all_that_is_drawn(results_of: Any) -> None:
    (found,) = results_of(panels.results("score", [verdict(score=3.0, percentile=12.5)], QUARTERS))
    assert (found["name"], found["score"], found["percentile"]) == ("a.jpg", 3.0, 12.5)
    assert len(found["map"]) == 49 and found["map"][0] == -2 and found["map"][-1] == 2
    with Image.open(io.BytesIO(base64.b64decode(found["preview"].removeprefix("data:image/jpeg;base64,")))) as image:
        assert image.size == (70, 35)
    bare = Verdict("a.jpg", 3.0, image=Image.new("RGB", (7, 7)))
    assert results_of(panels.results("score", [bare], QUARTERS))[0]["map"] is None


def test_a_client_without_scripts_reads_lines(results_of: Any) -> None:
    html = panels.results("batch", [verdict(score=3.524), Verdict("b.jpg", error="b.jpg: is empty")], QUARTERS)
    assert re.findall("<p>(.*?)</p>", html) == ["a.jpg: 3.52 (good)", "b.jpg: is empty"]
    assert results_of(html)[1] == {"name": "b.jpg", "error": "b.jpg: is empty"}


def test_names_cannot_write_into_the_page(results_of: Any) -> None:
    name = '"><img src=x onerror="alert(1)">.jpg'
    html = panels.results("batch", [verdict(name), Verdict(name, error=f"{name}: is empty")], QUARTERS)
    assert "<img" not in html and results_of(html)[0]["name"] == name
    assert "<img" not in panels.complaints([name]) + panels.note(name)


def test_one_upload_gives_a_panel_and_several_a_table(
    judge: Judge, image_files: list[str], broken_file: str, results_of: Any
) -> None:
    assert 'data-kind="score"' in page.score_files(judge, image_files[:1])
    html = page.score_files(judge, [*image_files, broken_file])
    assert 'data-kind="batch"' in html and ["error" in row for row in results_of(html)] == 5 * [False] + [True]
    assert "At most 100 at once" in page.score_files(judge, None)


def test_more_images_than_the_limit_are_refused(judge: Judge, image_files: list[str]) -> None:
    html = page.score_files(judge, image_files[:1] * 101)
    assert "101 images are more than the 100 that are scored at once: add fewer." in html


def test_a_comparison_waits_for_both_images(judge: Judge, image_files: list[str], results_of: Any) -> None:
    assert "Now add image B." in page.compare_files(judge, image_files[0], None)
    assert "Now add image A." in page.compare_files(judge, None, image_files[0])
    html = page.compare_files(judge, *image_files[:2])
    assert 'data-kind="compare"' in html and len(results_of(html)) == 2


def test_two_files_in_one_field_fill_both_sides() -> None:
    assert page.two_files(["a"], ["b"]) == ("a", "b")
    assert page.two_files(["a", "b", "c"], None) == page.two_files(None, ["a", "b"]) == ("a", "b")
    assert page.two_files(["old"], ["a", "b"]) == ("a", "b")
    assert page.two_files(["a"], None) == ("a", None) and page.two_files(None, None) == (None, None)
