"""The page with a server in Chromium, on a desk and on a phone. `make browser` installs what this needs."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.pale_texts import PALE_TEXTS
from sind_hf.app.panels import Scale

pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `browser`")

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: `make browser`, or name one in CHROMIUM"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox refuses to be run by root, as containers do.
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desk, light", "phone, dark"])
def visitor(request, chromium, served) -> Iterator[Any]:
    """Open the page. After the test it must have talked to its server alone and reported no error."""
    width, height, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=width < 500,
        is_mobile=width < 500,
        accept_downloads=True,
    )
    page = context.new_page()
    asked: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(served)
    page.locator("#drop input[type=file]").wait_for(state="attached")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert troubles == []
    context.close()


def drop(page: Any, files: list[str] | str, field: str = "#drop") -> None:
    page.locator(f"{field} input[type=file]").first.set_input_files(files)


def all_inside(page: Any, parts: Any) -> bool:
    """Return whether parts of the page are inside it from left to right."""
    width = page.evaluate("innerWidth")
    boxes = parts.evaluate_all("all => all.map(each => each.getBoundingClientRect().toJSON())")
    return len(boxes) > 0 and all(box["left"] >= 0 and box["right"] <= width + 0.5 for box in boxes)


def instruction(page: Any, field: str) -> str:
    return page.locator(f"{field} button .wrap").first.evaluate(
        "wrap => JSON.parse(getComputedStyle(wrap, '::after').content)"
    )


def test_one_image_has_a_score_a_word_a_percentile_and_a_map(visitor, judge, image_files):
    expected_words = (
        "Choose or take a photo" if visitor.viewport_size["width"] < 500 else "Choose images or drop them here"
    )
    assert instruction(visitor, "#drop") == expected_words
    drop(visitor, image_files[0])
    panel = visitor.locator("#scored section")  # text of its host leaves out the shadow tree
    panel.locator(".score").wait_for()
    score = judge.model.score(image_files[:1], judge.processor)[0]
    text = panel.inner_text()
    assert f"{score:.1f}" in text and "on a scale of 0 to 100; higher is better" in text
    assert "of the 100 reference images." in text
    assert panel.locator(".word").inner_text() == Scale.of(judge).word(score)
    canvas = panel.locator("figure canvas")
    assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [320, 240]
    canvas.hover(position={"x": 3, "y": 3})
    assert panel.locator("output").inner_text().startswith("Row 1, column 1: ")
    assert all_inside(visitor, panel.locator("section, canvas"))
    # The upload field shrinks, and the score is on the first screen.
    assert instruction(visitor, "#drop") == "Score more"
    field, words = (visitor.locator(part).first.bounding_box() for part in ("#drop", "#drop button .wrap"))
    assert field["height"] < 70 and 0 < words["y"] + words["height"] / 2 - field["y"] < field["height"]
    assert panel.locator(".score").bounding_box()["y"] < visitor.viewport_size["height"] / 2
    assert visitor.evaluate(PALE_TEXTS) == []
    assert visitor.get_by_text("common.complete").count() == 0


def test_an_example_is_scored_by_a_click(visitor):
    items = visitor.locator("#examples button.thumbnail-item")
    items.nth(2).wait_for()
    assert items.nth(1).get_attribute("aria-label") == "Score the example: second"
    items.nth(1).click()
    visitor.locator("#scored h2", has_text="second").wait_for()
    # The result is above the examples: it is brought into sight.
    visitor.wait_for_function("document.querySelector('#scored').getBoundingClientRect().top >= -1")
    assert all_inside(visitor, items)


def test_several_images_are_sorted_marked_and_taken_away(visitor, image_files, broken_file):
    drop(visitor, [*image_files[:3], broken_file])
    panel = visitor.locator("#scored section")
    panel.locator("table").wait_for()
    assert "3 of 4 images scored" in panel.inner_text()
    assert "broken.jpg: damaged or unreadable image" in panel.locator("[role=alert]").inner_text()
    shown = [float(cell) for cell in panel.locator("td strong").all_inner_texts()]
    assert len(shown) == 3 and shown == sorted(shown, reverse=True)
    panel.get_by_role("button", name="Image").click()
    assert panel.locator(".name span").all_inner_texts() == ["image0.png", "image1.png", "image2.png"]
    with visitor.expect_download() as download:
        panel.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "scores.csv"
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["image0.png", "image1.png", "image2.png", "broken.jpg"]
    assert sorted(round(float(row["score"]), 1) for row in rows[:3]) == sorted(shown)
    assert rows[3]["score"] == "" and "damaged" in rows[3]["error"]
    best = max(rows[:3], key=lambda row: float(row["score"]))
    panel.locator(".threshold input").evaluate(
        "(field, value) => { field.value = value; field.dispatchEvent(new Event('input')); }", float(best["score"])
    )
    assert panel.locator("tbody.below").count() in (2, 3)  # the slider has steps
    panel.locator("summary").first.click()
    panel.locator("details canvas").first.wait_for()
    assert all_inside(visitor, panel.locator("table, .number, details canvas"))


def test_two_images_are_compared_from_one_drop_or_two(visitor, judge, image_files, broken_file):
    visitor.get_by_role("tab", name="Compare").click()
    drop(visitor, image_files[:2], "#slot-A")
    panel = visitor.locator("#compared")
    panel.locator(".side").first.wait_for()
    a, b = judge.model.score(image_files[:2], judge.processor)
    assert panel.locator("h2").inner_text().startswith(f"{'A' if a > b else 'B'} looks ")
    left, right = panel.locator(".side canvas").evaluate_all(  # at once: the page may be scrolling
        "sides => sides.map(side => side.getBoundingClientRect().toJSON())"
    )
    assert (left["top"], left["width"], left["height"]) == (right["top"], right["width"], right["height"])
    assert left["right"] <= right["left"] and all_inside(visitor, panel.locator(".side"))

    visitor.get_by_role("button", name="Compare the examples “first” and “second”").click()
    panel.get_by_text("A: first").wait_for()

    drop(visitor, broken_file, "#slot-A")
    visitor.get_by_text("Now add image B.").wait_for()
    drop(visitor, image_files[1], "#slot-B")
    assert "broken.jpg" in panel.locator("[role=alert]").inner_text()
    assert panel.locator("h2").count() == 0


def test_a_file_that_is_too_heavy_is_named_and_the_others_are_scored(visitor, image_files, tmp_path):
    heavy = Path(tmp_path / "heavy.png")
    with open(heavy, "wb") as file:
        file.truncate(51 * 2**20)
    drop(visitor, [str(heavy), *image_files[:2]])
    visitor.locator("#scored table").wait_for()
    text = visitor.locator("#scored section").inner_text()
    assert "heavy.png: 51 MB is over the limit of 50 MB; save it smaller" in text and "2 of 3 images scored" in text
