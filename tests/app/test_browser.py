"""The page in Chromium, as a visitor on a desk and on a phone meets it. `make browser` installs what this needs."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desk", "phone"])
def visitor(request, chromium, served) -> Iterator[Any]:
    """An open page. When the test is over, it must have talked to its server alone and reported no error."""
    width, height = request.param
    context = chromium.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    asked: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(served)
    page.get_by_text("Drop pictures here").wait_for()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert troubles == []
    context.close()


def drop(page: Any, files: list[str] | str, field: int = 0) -> None:
    page.locator("input[type=file]").nth(field).set_input_files(files)


def fits(page: Any, selector: str) -> bool:
    """Whether all that a selector finds lies within the page and within what cuts it."""
    return page.evaluate(
        """selector => [...document.querySelectorAll(selector)].every(each => {
             const box = each.getBoundingClientRect();
             return box.left >= 0 && box.right <= innerWidth + 0.5 && each.scrollWidth <= each.clientWidth + 1;
           })""",
        selector,
    )


def test_a_picture_is_scored_with_its_map(visitor, judge, picture_files):
    drop(visitor, picture_files[0])
    panel = visitor.locator("#scored")
    panel.locator(".sind-score").wait_for()
    score = judge.model.score(picture_files[:1], judge.processor)[0]
    text = panel.inner_text()
    assert f"{score:.1f}" in text and "on a scale of 0 to 100; higher is better" in text
    assert "of the 100 reference pictures" in text and "red: worse" in text
    shown = panel.locator("img").evaluate_all("images => images.map(each => each.complete && each.naturalWidth)")
    assert shown == [320, 320]  # the picture, and its map of the same size
    assert fits(visitor, "#scored .sind-panel, #scored img")


def test_an_example_is_scored_by_a_click(visitor):
    items = visitor.locator("#examples button.thumbnail-item")
    items.nth(2).wait_for()
    items.nth(1).click()
    visitor.locator("#scored h3", has_text="second").wait_for()
    # The result stands above the examples: it is brought into sight.
    visitor.wait_for_function("document.querySelector('#scored').getBoundingClientRect().top >= -1")
    assert fits(visitor, "#scored img, #examples .thumbnail-item")


def test_a_batch_names_the_broken_file_and_gives_a_table_to_take_away(visitor, picture_files, broken_file):
    drop(visitor, [*picture_files[:3], broken_file])
    panel = visitor.locator("#scored")
    panel.locator("table").wait_for()
    assert "3 of 4 pictures scored" in panel.inner_text()
    assert "broken.jpg: damaged or unreadable image" in panel.locator("[role=alert]").inner_text()
    shown = [float(cell) for cell in panel.locator("td strong").all_inner_texts()]
    assert len(shown) == 3 and shown == sorted(shown, reverse=True)
    with visitor.expect_download() as download:
        panel.get_by_text("Download CSV").click()
    assert download.value.suggested_filename == "scores.csv"
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["picture0.png", "picture1.png", "picture2.png", "broken.jpg"]
    assert sorted(round(float(row["score"]), 1) for row in rows[:3]) == sorted(shown)
    assert rows[3]["score"] == "" and "damaged" in rows[3]["error"]
    panel.locator("summary").first.click()
    assert panel.locator("details img").first.is_visible()
    assert fits(visitor, "#scored table, #scored .sind-number, #scored details img")


def test_two_pictures_stand_side_by_side(visitor, judge, picture_files, broken_file):
    visitor.get_by_role("tab", name="Compare").click()
    drop(visitor, picture_files[0], 1)
    visitor.get_by_text("Now add picture B.").wait_for()
    # The filled field has no input any more.
    drop(visitor, picture_files[1], 1)
    panel = visitor.locator("#compared")
    panel.locator(".sind-verdict").wait_for()
    a, b = judge.model.score(picture_files[:2], judge.processor)
    assert panel.inner_text().startswith(f"{'A' if a > b else 'B'} looks better, by {abs(a - b):.1f} points")
    left, right = panel.locator(".sind-side").evaluate_all(  # at once: the page may be scrolling
        "sides => sides.map(side => side.getBoundingClientRect().toJSON())"
    )
    assert left["top"] == right["top"] and left["right"] <= right["left"]
    assert fits(visitor, "#compared .sind-side, #compared img")

    visitor.get_by_role("button", name="Compare the examples “first” and “second”").click()
    panel.get_by_text("A: first").wait_for()

    drop(visitor, broken_file, 1)
    visitor.get_by_text("Now add picture B.").wait_for()
    drop(visitor, picture_files[1], 1)
    panel.locator("[role=alert]").wait_for()
    assert "broken.jpg" in panel.inner_text() and "looks better" not in panel.inner_text()


def test_a_file_that_is_too_heavy_is_named_and_the_others_are_scored(visitor, picture_files, tmp_path):
    heavy = Path(tmp_path / "heavy.png")
    with open(heavy, "wb") as file:
        file.truncate(51 * 2**20)
    drop(visitor, [str(heavy), *picture_files[:2]])
    visitor.get_by_text("heavy.png: 51 MB is over the limit of 50 MB; save it smaller").wait_for()
    assert "2 of 3 pictures scored" in visitor.locator("#scored").inner_text()
