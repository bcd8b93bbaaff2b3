"""Seconds and memory of the page of plain files in Chromium, which it runs without a window.

    python scripts/benchmarks/static_page.py [--model bundled] [--counts 1 50] [--threads]

Prints a Markdown table: the time from adding images of 12 megapixels until their results are drawn, and the largest
resident memory of the page's process so far. The page is loaded before, and has scored a small image. Needs the extras
`app`, `onnx` and `browser`, Chromium, and Linux, which says how much memory a process took at most.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rounds import machine, make_photographs

from sind_hf.app.static_site import write_site

KINDS = 5  # different images; the others are copies
SIZE = (4000, 3000)
WAIT = 600_000  # milliseconds


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def largest_memory(browser: Any) -> float:
    """Return the largest resident memory that a page's process has taken so far, in MB."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    found = []
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text()
            found.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
    return max(found)


def score(page: Any, files: list[Path], result: str) -> float:
    """Add images to the page and return the seconds until their results are drawn."""
    page.evaluate("document.getElementById('scored').replaceChildren()")
    start = time.perf_counter()
    page.locator("#score input[type=file]").first.set_input_files([str(file) for file in files])
    page.locator(f"#scored {result}").first.wait_for()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--threads", action="store_true", help="up to four threads, as from the second visit on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        root = Path(temporary)
        write_site(root / "site", options.model)
        (root / "images").mkdir()
        kinds = make_photographs(root / "images", SIZE, min(KINDS, max(options.counts)))
        small = make_photographs(root, (640, 480), 1)
        files = []
        for number in range(max(options.counts)):
            files.append(root / "images" / f"photo{number}.jpg")
            shutil.copyfile(kinds[number % len(kinds)], files[-1])
        handler = functools.partial(QuietHandler, directory=str(root / "site"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(
            executable_path=shutil.which(os.environ.get("CHROMIUM", "chromium")), args=flags
        )
        page = browser.new_page(service_workers="allow" if options.threads else "block")
        page.set_default_timeout(WAIT)
        for _ in range(2 if options.threads else 1):
            start = time.perf_counter()
            page.goto(f"http://localhost:{server.server_port}/")
            page.locator("html[data-runtime]").wait_for(state="attached")
            loaded = time.perf_counter() - start
        score(page, small, ".score")
        runtime = page.evaluate("document.documentElement.dataset.runtime")
        print(f"Chromium {browser.version}, runtime and threads: {runtime}; {machine()}. Loading: {loaded:.1f} s\n")
        print("| images of 12 megapixels | seconds | seconds per image | memory |\n| ---: | ---: | ---: | ---: |")
        print(f"| 0 | | | {largest_memory(browser):.0f} MB |")
        for count in options.counts:
            seconds = score(page, files[:count], ".score" if count == 1 else "table")
            print(
                f"| {count} | {seconds:.1f} | {seconds / count:.2f} | {largest_memory(browser):.0f} MB |", flush=True
            )
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
