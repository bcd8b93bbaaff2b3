"""The page of plain files in Chromium, against the package's own scores. `make browser` installs what this needs."""

from __future__ import annotations

import base64
import csv
import functools
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.color_profiles import P3
from helpers.pale_texts import PALE_TEXTS
from sind_hf.app.judge import Judge
from sind_hf.app.panels import Scale
from sind_hf.app.static_site import write_site
from sind_hf.bundled import bundled_checkpoint
from sind_hf.image_processing_sind import cut_views, plan_views, resize_images
from sind_hf.scoring.scorer import score_images

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `browser`")
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: `make browser`, or name one in CHROMIUM"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, which fetches onnxruntime-web"),
]
TOLERANCE = 0.02  # on the scale of 1 to 5, for scores and for the parts of maps
START = 120_000  # milliseconds that a busy machine may take to load the model

# Scores the files of an input by the worker alone, and returns what the page would only show rounded.
SCORE_FILES = """async (runtime) => {
  const site = await (await fetch("site.json")).json();
  const script = new Blob([`import "${location.href}worker.js";`], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(script), { type: "module" });
  const ask = (message) => new Promise((resolve) => {
    worker.onmessage = ({ data }) => data.progress === undefined && resolve(data);
    worker.postMessage({ ...message, id: 1 });
  });
  const opened = await ask({ task: "open", site, runtime });
  if (opened.error) throw new Error(opened.error);
  const found = {};
  for (const file of document.getElementById("files").files) {
    const { value, error } = await ask({ task: "score", file, side: 100 });
    found[file.name] = value
      ? { score: value.score, map: [...value.map], size: [value.width, value.height] }
      : { error };
  }
  worker.terminate();
  return found;
}"""

# Makes the views of RGB bytes.
MAKE_VIEWS = """async ([bytes, width, height, settings]) => {
  const { makeViews } = await import("./views.js");
  const rgb = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let pixel = 0; pixel < width * height; pixel++) rgba.set(rgb.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
  const readRows = (top, count) => rgba.subarray(4 * width * top, 4 * width * (top + count));
  const { global, local } = makeViews({ width, height, readRows }, settings);
  const encode = (view) => btoa(Array.from(view, (value) => String.fromCharCode(value)).join(""));
  return [encode(global), encode(local)];
}"""


@dataclass
class Served:
    """A folder on localhost: its address, and how to stop the server."""

    url: str
    stop: Callable[[], None]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def serve(folder: Path) -> Served:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return Served(f"http://localhost:{server.server_port}/", stop)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """The checkpoint of the package."""
    return Judge.load(bundled_checkpoint(), device="cpu")


@pytest.fixture(scope="module")
def folder(judge: Judge, draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="needs onnx, of the extra `onnx`")
    where = tmp_path_factory.mktemp("static")
    (where / "examples").mkdir()
    for name, size in (("first", (300, 240)), ("second", (240, 300))):
        draw(*size).save(where / "examples" / f"{name}.png")
    return write_site(where / "site", judge, examples=where / "examples").folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    server = serve(folder)
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox refuses to be run by root, as containers do. A machine without a GPU draws WebGPU itself.
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        flags += ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def open_page(context: Any, url: str) -> Any:
    page = context.new_page()
    page.set_default_timeout(START)
    page.goto(url)
    page.locator("html[data-runtime]").wait_for(state="attached")
    return page


@pytest.fixture(scope="module")
def plain(chromium: Any, served: str) -> Iterator[Any]:
    """An open page for tests of the modules behind it."""
    context = chromium.new_context()
    yield open_page(context, served)
    context.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desk, light", "phone, dark"], scope="module")
def visitor(request: Any, chromium: Any, served: str) -> Iterator[Any]:
    """An open page. When its tests are over, it must have asked its own host alone and reported no error."""
    width, height, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    asked: list[str] = []
    troubles: list[str] = []
    context.on("request", lambda sent: asked.append(sent.url))
    context.on("weberror", lambda error: troubles.append(str(error.error)))
    context.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    yield open_page(context, served)
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((served, f"blob:{served}"))] == []
    assert troubles == []
    context.close()


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def score(page: Any, files: list[str] | str, result: str) -> Any:
    page.get_by_role("tab", name="Score").click()
    page.evaluate("document.getElementById('scored').replaceChildren()")
    page.locator("#score input[type=file]").first.set_input_files(files)
    panel = page.locator("#scored")
    panel.locator(result).first.wait_for()
    return panel


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "pillow"])
@pytest.mark.parametrize("mode", ["center", "nine"])
@pytest.mark.parametrize(
    "size",
    [(640, 480), (100, 100), (333, 777), (5, 1), (1, 1), (1400, 37), (31, 900)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_views_are_those_of_the_processor_to_the_last_bit(
    plain: Any, size: tuple[int, int], mode: Any, backend: Any
) -> None:
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for view_size in (112, 224):
        images = resize_images(Image.fromarray(noise), view_size, backend)
        expected = cut_views(*images, plan_views(mode, images[1].shape[:2], view_size), view_size)
        settings = {"view_size": view_size, "views": mode, "resize_backend": backend}
        found = plain.evaluate(MAKE_VIEWS, [base64.b64encode(noise.tobytes()).decode(), width, height, settings])
        for view, encoded in zip(expected, found, strict=True):
            assert np.array_equal(view.ravel(), np.frombuffer(base64.b64decode(encoded), np.uint8))


def real_files(shared: Path, folder: Path) -> list[Path]:
    """Sixty real photographs as visitors have them: formats, sizes, transparency, and turned by their EXIF."""
    originals = [
        path
        for name in ("kodak", "gb82", "clic2025", "cid22")
        for path in sorted((shared / "data/photos" / name).glob("*.jpg"))[:15]
    ]
    if len(originals) < 60:
        pytest.skip(f"needs sixty photographs in {shared / 'data/photos'}")
    for number, original in enumerate(originals):
        image = Image.open(original).convert("RGB")
        kind, name = number % 15, f"{number:02d}"
        exif = Image.Exif()
        exif[0x0112] = number * 7 % 8 + 1
        if kind < 3:
            shutil.copyfile(original, folder / f"{name}.jpg")
        elif kind == 3:
            image.save(folder / f"{name}.png")
        elif kind == 4:
            image.save(folder / f"{name}-subsampled.jpg", quality=75, progressive=True)
        elif kind == 5:
            image.save(folder / f"{name}-lossy.webp", quality=80)
        elif kind == 6:
            image.save(folder / f"{name}-lossless.webp", lossless=True)
        elif kind in (7, 8):
            image.save(folder / f"{name}-turned.jpg", exif=exif, quality=95)
        elif kind == 9:
            image.save(folder / f"{name}-turned.png", exif=exif)
        elif kind == 10:
            image.save(folder / f"{name}-turned.webp", exif=exif, lossless=True)
        elif kind in (11, 12):
            ramp = np.linspace(0, 255, image.width).astype(np.uint8)
            image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
            image.save(folder / f"{name}-clear.{'png' if kind == 11 else 'webp'}", lossless=True)
        elif kind == 13:
            image.thumbnail((100, 100))
            image.save(folder / f"{name}-small.jpg", quality=90)
        else:
            factor = (12e6 / (image.width * image.height)) ** 0.5
            large = image.resize((round(image.width * factor), round(image.height * factor)))
            large.save(folder / f"{name}-large.jpg", quality=92)
    return sorted(folder.iterdir())


def choose(page: Any, files: list[Path]) -> None:
    page.evaluate(
        """() => {
          document.getElementById("files")?.remove();
          const input = Object.assign(document.createElement("input"), { type: "file", multiple: true, id: "files" });
          document.body.append(input);
        }"""
    )
    page.set_input_files("#files", [str(path) for path in files])


def assert_like_the_package(
    found: dict[str, Any], files: list[Path], judge: Judge, tolerance: float = TOLERANCE
) -> None:
    rows = score_images(judge.model, judge.processor, [str(path) for path in files], batch_size=1, quality_maps=True)
    for path, row in zip(files, rows, strict=True):
        assert row.score is not None and row.quality_map is not None
        assert abs(found[path.name]["score"] - row.score) < tolerance, path.name
        points = judge.model.config.score_scale * (row.quality_map - row.quality_map.mean())
        np.testing.assert_allclose(found[path.name]["map"], points.ravel(), rtol=0, atol=tolerance, err_msg=path.name)


def test_scores_and_maps_of_real_photographs_are_the_packages(
    plain: Any, judge: Judge, shared: Path, tmp_path: Path
) -> None:
    files = real_files(shared, tmp_path)
    choose(plain, files)
    found = plain.evaluate(SCORE_FILES, None)
    assert_like_the_package(found, files, judge)
    scores = [found[path.name]["score"] for path in files]
    assert len(files) == 60 and np.ptp(scores) > 50 * TOLERANCE


def test_every_exif_orientation_is_turned_upright_in_every_format(
    plain: Any, judge: Judge, draw: Any, tmp_path: Path
) -> None:
    drawn = draw(320, 200)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind, options in (("png", {}), ("webp", {"lossless": True}), ("jpg", {"quality": 100, "subsampling": 0})):
            drawn.save(tmp_path / f"{orientation}.{kind}", exif=exif, **options)
    files = sorted(tmp_path.iterdir())
    choose(plain, files)
    found = plain.evaluate(SCORE_FILES, "wasm")
    for name, result in found.items():
        assert result["size"] == ([200, 320] if int(name[0]) > 4 else [320, 200]), name
    assert_like_the_package(found, files, judge)


def test_transparent_images_of_every_format_are_laid_on_white_alike(
    plain: Any, judge: Judge, draw: Any, tmp_path: Path
) -> None:
    drawn = draw(320, 200)
    drawn.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 320).astype(np.uint8), (200, 1))))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("clear", {}), ("turned", {"exif": exif})):
        drawn.save(tmp_path / f"{name}.png", **options)
        drawn.save(tmp_path / f"{name}.webp", lossless=True, **options)
    files = sorted(tmp_path.iterdir())
    choose(plain, files)
    found = plain.evaluate(SCORE_FILES, "wasm")
    assert_like_the_package(found, files, judge)
    for name in ("clear", "turned"):  # the pixels are the same; a gray level less in half of them would show
        assert found[f"{name}.webp"]["score"] == pytest.approx(found[f"{name}.png"]["score"], abs=1e-5)


def test_colors_of_an_embedded_profile_are_converted_as_in_the_package(
    plain: Any, judge: Judge, draw: Any, tmp_path: Path
) -> None:
    drawn = draw(320, 200)
    drawn.save(tmp_path / "bare.png")
    drawn.save(tmp_path / "wide.png", icc_profile=P3)
    drawn.save(tmp_path / "wide.webp", icc_profile=P3, lossless=True)
    drawn.save(tmp_path / "wide.jpg", icc_profile=P3, quality=100, subsampling=0)
    files = sorted(tmp_path.iterdir())
    choose(plain, files)
    found = plain.evaluate(SCORE_FILES, "wasm")
    assert_like_the_package(found, files, judge)
    assert abs(found["wide.png"]["score"] - found["bare.png"]["score"]) > 2 * TOLERANCE


def test_scores_of_webgpu_are_the_packages(
    chromium: Any, exported: Any, image_files: list[str], tmp_path: Path
) -> None:
    # A tiny network: without a GPU, the bundled one takes minutes.
    judge = Judge.load(str(exported("resnet").folder), device="cpu")
    server = serve(write_site(tmp_path / "site", judge).folder)
    context = chromium.new_context()
    try:
        page = open_page(context, server.url)
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium has no WebGPU")
        files = [Path(image_files[0])]
        choose(page, files)
        low, high = judge.model.config.score_range
        assert_like_the_package(page.evaluate(SCORE_FILES, "webgpu"), files, judge, TOLERANCE * (high - low) / 4)
    finally:
        context.close()
        server.stop()


def test_a_runtime_that_fails_its_check_is_not_used(chromium: Any, served: str, folder: Path) -> None:
    context = chromium.new_context(service_workers="block")
    wrong = json.loads((folder / "site.json").read_text())
    wrong["check"]["quality"] += 1
    context.route("**/site.json", lambda route: route.fulfill(json=wrong))
    page = context.new_page()
    page.goto(served)
    page.get_by_text("The model could not be loaded: The runtime “wasm” gives another score").wait_for(timeout=START)
    context.close()


# --- the page --------------------------------------------------------------------------------------------------------


def test_one_image_has_a_score_a_word_and_a_map(visitor: Any, judge: Judge, image_files: list[str]) -> None:
    panel = score(visitor, image_files[0], ".score")
    expected = judge.model.score(image_files[:1], judge.processor)[0]
    text = panel.inner_text()
    assert f"{expected:.2f}" in text and "on a scale of 1 to 5; higher is better" in text
    assert panel.locator(".word").inner_text() == Scale.of(judge).word(expected)
    canvas = panel.locator("figure canvas")
    assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [320, 240]
    pixel = "canvas => [...canvas.getContext('2d').getImageData(10, 10, 1, 1).data]"
    tinted = canvas.evaluate(pixel)
    panel.locator("input[type=range]").evaluate(
        "field => { field.value = 0; field.dispatchEvent(new Event('input')); }"
    )
    with Image.open(image_files[0]) as image:
        assert canvas.evaluate(pixel)[:3] == list(image.convert("RGB").getpixel((10, 10))) != tinted[:3]
    canvas.focus()
    visitor.keyboard.press("ArrowRight")
    read = panel.locator("output").inner_text()
    assert read.startswith("Row 1, column 2: ") and read.endswith(" points")
    canvas.hover(position={"x": 3, "y": 3})
    assert panel.locator("output").inner_text().startswith("Row 1, column 1: ")
    assert fits(visitor)


def test_several_images_are_sorted_marked_and_taken_away(
    visitor: Any, judge: Judge, image_files: list[str], broken_file: str
) -> None:
    panel = score(visitor, [*image_files[:4], broken_file], "table")
    assert "4 of 5 images scored" in panel.inner_text()
    assert (
        panel.locator("[role=alert]").inner_text() == "broken.jpg: damaged JPEG file: it could not be read to the end"
    )
    expected = dict(
        zip(
            map(os.path.basename, image_files[:4]),
            judge.model.score(image_files[:4], judge.processor),
            strict=True,
        )
    )
    shown = [float(cell) for cell in panel.locator("td strong").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert shown == pytest.approx(sorted(expected.values(), reverse=True), abs=TOLERANCE)
    panel.get_by_role("button", name="Image").click()
    assert panel.locator(".name span").all_inner_texts() == sorted(expected)
    with visitor.expect_download() as download:
        panel.get_by_role("button", name="Download CSV").click()
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        list(rows[0]) == ["image", "score", "error", "percentile"]
        and rows[4]["score"] == ""
        and "damaged" in rows[4]["error"]
    )
    for row in rows[:4]:
        assert abs(float(row["score"]) - expected[row["image"]]) < TOLERANCE
    least = round(float(np.mean(sorted(expected.values())[1:3])), 2)  # between the second and the third
    panel.locator(".threshold input").evaluate(
        "(field, value) => { field.value = value; field.dispatchEvent(new Event('input')); }", least
    )
    assert panel.locator("tbody.below").count() == 2 and "2 of 4" in panel.locator(".threshold output").inner_text()
    assert panel.locator(".left-out:visible").count() == 2
    with visitor.expect_download() as download:
        panel.get_by_role("button", name="Download the list of kept files").click()
    kept = Path(download.value.path()).read_text().split()
    assert sorted(kept) == sorted(name for name, value in expected.items() if value >= least)
    panel.locator("summary").first.click()
    panel.locator("details canvas").first.wait_for()
    assert visitor.evaluate(PALE_TEXTS) == []
    assert fits(visitor)


def test_two_images_are_compared_from_one_drop(visitor: Any, judge: Judge, image_files: list[str]) -> None:
    visitor.get_by_role("tab", name="Compare").click()
    visitor.locator("#compare input[type=file]").first.set_input_files(image_files[:2])
    panel = visitor.locator("#compared")
    panel.locator("h2").wait_for()
    a, b = judge.model.score(image_files[:2], judge.processor)
    assert panel.locator("h2").inner_text().startswith(f"{'A' if a > b else 'B'} looks ")
    left, right = panel.locator(".side canvas").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().toJSON())"
    )
    assert (left["width"], left["height"]) == (right["width"], right["height"]) and left["right"] <= right["left"]
    assert fits(visitor)


def test_an_example_is_scored(visitor: Any) -> None:
    visitor.get_by_role("tab", name="Score").click()
    visitor.get_by_role("button", name="second").click()
    visitor.locator("#scored h2", has_text="second").wait_for()


def test_files_that_cannot_be_scored_get_words(visitor: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.png").write_text("hello")
    (tmp_path / "cut.webp").write_bytes(b"RIFF\x10\x00\x00\x00WEBPVP8 ")
    panel = score(visitor, [str(tmp_path / name) for name in ("empty.jpg", "notes.png", "cut.webp")], "[role=alert]")
    lines = panel.locator("[role=alert] li").all_inner_texts()
    assert lines[0] == "empty.jpg: is empty"
    assert lines[1] == "notes.png: not an image that this browser reads; it reads JPEG, PNG, WebP, GIF, BMP and AVIF"
    assert lines[2] == "cut.webp: damaged WebP file: it could not be read to the end"


def test_neither_the_page_nor_its_worker_can_reach_another_host(chromium: Any, served: str, folder: Path) -> None:
    other = serve(folder)
    context = chromium.new_context()
    page = open_page(context, served)
    reach = "async (url) => fetch(url, { mode: 'no-cors' }).then(() => 'reached', () => 'refused')"
    assert page.evaluate(reach, served + "site.json") == "reached"
    assert page.evaluate(reach, other.url) == "refused"
    in_worker = """async (url) => {
      const script = `fetch(${JSON.stringify(url)}, { mode: "no-cors" })
        .then(() => self.postMessage("reached"), () => self.postMessage("refused"));`;
      const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
      return new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)));
    }"""
    assert page.evaluate(in_worker, other.url) == "refused"
    context.close()
    other.stop()


def test_the_second_visit_needs_no_server_and_may_use_threads(
    chromium: Any, folder: Path, judge: Judge, image_files: list[str]
) -> None:
    server = serve(folder)
    context = chromium.new_context()
    first = open_page(context, server.url)
    assert first.evaluate("crossOriginIsolated") is False
    kept = "async () => (await Promise.all(['model.onnx', 'ort/ort-wasm-simd-threaded.wasm.gz'].map("
    kept += "(file) => caches.match(new URL(file, location))))).every(Boolean)"
    deadline = time.monotonic() + 60
    while not first.evaluate(kept) and time.monotonic() < deadline:  # files are kept a moment after they are used
        time.sleep(0.1)
    server.stop()
    first.close()
    second = open_page(context, server.url)
    assert second.evaluate("crossOriginIsolated") is True
    panel = score(second, image_files[0], ".score")
    assert f"{judge.model.score(image_files[:1], judge.processor)[0]:.2f}" in panel.inner_text()
    context.close()
