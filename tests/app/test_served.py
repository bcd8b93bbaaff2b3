"""What a client of the page with a server gets, and what stays on the disk."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

gradio_client = pytest.importorskip("gradio_client", reason="needs gradio, of the extra `app`")

import httpx  # noqa: E402  (of gradio_client)
from gradio_client import Client, handle_file  # noqa: E402

from sind_hf.app import build_app, launch_app, middleware, page  # noqa: E402


@pytest.fixture(scope="module")
def client(served: str) -> Client:
    return Client(served, verbose=False, analytics_enabled=False)


def uploads() -> set[str]:
    """Return the names of the uploaded files, without the examples."""
    return {path.name for path in Path(page._upload_folder()).rglob("*") if path.is_file() and path.suffix != ".webp"}


def test_a_client_gets_scores_and_the_server_keeps_no_image(client, judge, image_files, broken_file, results_of):
    before = uploads()
    score = judge.model.score(image_files[:1], judge.processor)[0]
    html, cleared = client.predict([handle_file(image_files[0])], api_name="/score")
    assert f"<p>image0.png: {score:.1f} (" in html and cleared in (None, [])
    assert results_of(html)[0]["score"] == pytest.approx(score, abs=1e-4)
    html, _ = client.predict([handle_file(file) for file in (*image_files, broken_file)], api_name="/score")
    assert "broken.jpg: damaged or unreadable image" in html and len(results_of(html)) == 6
    for a, b in (([image_files[0]], [image_files[1]]), (image_files[:2], [])):
        html, *_ = client.predict(list(map(handle_file, a)), list(map(handle_file, b)) or None, api_name="/compare")
        assert [row["name"] for row in results_of(html)] == ["image0.png", "image1.png"]
    assert uploads() == before


def score_path(url: str, path: str) -> str:
    """Ask for the score of a path on the server, as no browser would."""
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/score", json={"data": [[named]]}).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/score/{event}", timeout=30).text


def test_files_of_the_server_are_neither_read_nor_deleted(served, image_files):
    answer = score_path(served, image_files[0])
    assert "event: error" in answer and "sind-results" not in answer
    assert Path(image_files[0]).is_file()


def test_examples_stay_when_a_client_names_them_as_its_upload(served):
    example = next(Path(page._upload_folder()).rglob("*.webp"))
    assert "sind-results" in score_path(served, str(example))
    assert example.is_file()


def test_heavy_uploads_are_refused_on_arrival(judge, example_folder, monkeypatch, free_port):
    monkeypatch.setattr(page, "UPLOAD_BYTES", 10_000)
    before = uploads()
    made = build_app(judge, examples=example_folder)
    url = launch_app(made, port=free_port, block=False)
    try:
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("big.png", bytes(50_000))})
        assert answer.status_code == 413
        assert httpx.post(f"{url}gradio_api/upload", files={"files": ("ok.png", bytes(5_000))}).status_code == 200
        assert uploads() - before == {"ok.png"}
    finally:
        made.close(verbose=False)


def test_the_page_is_local_reports_to_nobody_and_is_not_shared(judge, example_folder, free_port):
    made = build_app(judge, examples=example_folder)
    url = launch_app(made, port=free_port, block=False)
    try:
        assert url == f"http://127.0.0.1:{free_port}/"
        assert made.share_url is None and made.analytics_enabled is False
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        shown = httpx.get(url).text
        assert "tiny" in shown and "on a scale of 0 to 100; higher is better" in shown
        tags = dict(re.findall(r'<meta property="(og:[^"]*)" content="([^"]*)"', shown))
        assert tags == {"og:title": "How good does this photograph look?", "og:description": middleware.DESCRIPTION}
        assert 'content="Gradio"' not in shown and "@Gradio" not in shown
        for name, kind in middleware.FILES.items():
            answer = httpx.get(f"{url}sind/{name}")
            assert answer.text == (Path(middleware.__file__).with_name(name)).read_text(encoding="utf-8")
            assert answer.headers["content-type"].startswith(kind)
        assert httpx.get(f"{url}sind/page.py").status_code == 404
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1, port {free_port}: the port is taken"):
            launch_app(build_app(judge, examples=example_folder), port=free_port, block=False)
    finally:
        made.close(verbose=False)


@pytest.mark.slow
def test_the_command_serves_and_leaves_nothing_behind(tiny_checkpoint, image_files, tmp_path, free_port, results_of):
    """Run `sind-hf app` in another process, and end it by a signal."""
    home = tmp_path / "temporary"
    home.mkdir()
    (tmp_path / "scores.csv").write_text("image,score,error\na.jpg,-1e9,\nb.jpg,1e9,\n")
    options = ["--model", tiny_checkpoint, "--reference", tmp_path / "scores.csv", "--port", free_port]
    process = subprocess.Popen(
        [sys.executable, "-m", "sind_hf.cli", "app", *map(str, options)],
        env={**os.environ, "TMPDIR": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(free_port, process)
        client = Client(f"http://127.0.0.1:{free_port}/", verbose=False, analytics_enabled=False)
        html, _ = client.predict([handle_file(image_files[0])], api_name="/score")
        assert results_of(html)[0]["percentile"] == 50
        assert any(home.iterdir())
    finally:
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert err.splitlines()[0] == f"the page is at http://127.0.0.1:{free_port}/; Ctrl-C ends it"
    assert "Traceback" not in err and list(home.glob("sind-hf-app-*")) == []


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    pytest.fail("the page did not come up within a minute")
