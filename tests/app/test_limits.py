"""The page under load: no visitor takes the page from the others."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs gradio, of the extra `app`")

import httpx  # noqa: E402  (of gradio)

from sind_hf.app import build_app, middleware, page
from sind_hf.app import judge as judging  # noqa: E402


@pytest.fixture
def api(served: str) -> str:
    return f"{served}gradio_api"


def upload(api: str, data: bytes, name: str = "same.png") -> httpx.Response:
    return httpx.post(f"{api}/upload", files=[("files", (name, data))], timeout=60)


def score(api: str, path: str) -> str:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{api}/call/score", json={"data": [[named]]}, timeout=60).json()["event_id"]
    return httpx.get(f"{api}/call/score/{event}", timeout=60).text


def uploads() -> set[Path]:
    return {path for path in Path(page._upload_folder()).rglob("*") if path.is_file() and path.suffix != ".webp"}


def test_visitors_with_the_same_image_all_get_its_score(api, image_files):
    before = uploads()
    data = Path(image_files[0]).read_bytes()
    with ThreadPoolExecutor(8) as visitors:
        paths = [answer.json()[0] for answer in visitors.map(lambda _: upload(api, data), range(8))]
        assert len(set(paths)) == 8
        answers = list(visitors.map(lambda path: score(api, path), paths))
    assert all("sind-results" in answer for answer in answers)
    assert uploads() == before


def test_examples_are_shown_after_an_upload(api, image_files):
    upload(api, Path(image_files[0]).read_bytes())
    example = next(Path(page._upload_folder()).rglob("*.webp"))
    answer = httpx.get(f"{api}/file={example}")
    assert (answer.status_code, answer.content) == (200, example.read_bytes())


def test_addresses_are_not_fetched(api):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        answer = score(api, f"http://127.0.0.1:{server.getsockname()[1]}/a.png")
        assert "event: error" in answer and "addresses are not fetched" in answer
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("path", ["a.png", "/etc/hostname", ""])
def test_errors_name_no_folder_of_the_server(api, path):
    answer = score(api, path)
    assert "event: error" in answer
    assert os.getcwd() not in answer and page._upload_folder() not in answer and "/etc" not in answer


def test_slow_images_do_not_stop_the_page(api, image_files, monkeypatch):
    done = threading.Event()
    read = judging.read_image

    def read_slowly(path: str) -> Any:
        if Path(path).name == "slow.png":
            assert done.wait(60)
        return read(path)

    monkeypatch.setattr(judging, "read_image", read_slowly)
    data = Path(image_files[0]).read_bytes()
    with ThreadPoolExecutor(page.WORKERS) as others:
        paths = [upload(api, data, "slow.png").json()[0] for _ in range(page.WORKERS - 1)]
        slow = [others.submit(score, api, path) for path in paths]
        try:
            assert len(slow) > 3 and "sind-results" in score(api, upload(api, data, "quick.png").json()[0])
            assert not any(each.done() for each in slow)
        finally:
            done.set()
        assert all("sind-results" in each.result() for each in slow)


def test_uploads_that_nobody_scores_take_bounded_room(api, monkeypatch):
    held = sum(path.stat().st_size for path in uploads())
    monkeypatch.setattr(middleware, "HELD_BYTES", held + 10_000)
    first = upload(api, bytes(6000))
    assert first.status_code == 200
    refused = upload(api, bytes(6001))
    assert refused.status_code == 503 and "try again" in refused.text
    assert "same.png" in score(api, first.json()[0])  # not an image, but its answer frees its room
    second = upload(api, bytes(6001))
    assert second.status_code == 200
    score(api, second.json()[0])


@pytest.mark.parametrize("chunked", [True, False])
def test_long_messages_are_refused(api, chunked):
    body = json.dumps({"data": ["x" * (middleware.MESSAGE_BYTES + 1)]}).encode()
    content = iter([body[:1000], body[1000:]]) if chunked else body
    answer = httpx.post(f"{api}/call/score", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.text == "The request is over the limit of 1 MB."


def test_uploads_over_the_limit_are_refused_and_leave_nothing(api, monkeypatch):
    before = uploads()
    monkeypatch.setattr(middleware, "UPLOAD_BYTES", 100_000)
    assert upload(api, bytes(110_000)).status_code == 413
    files = [("files", (f"{number}.png", bytes(60_000))) for number in range(2)]  # each below the limit
    assert httpx.post(f"{api}/upload", files=files).status_code == 413
    answer = httpx.post(f"{api}/upload", content=iter([b"x"]), headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 411
    assert uploads() == before


def open_connection(api: str) -> socket.socket:
    address = httpx.URL(api)
    connection = socket.create_connection((address.host, address.port))
    connection.settimeout(20)
    return connection


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(4096):
            received += part
    except ConnectionResetError:
        pass
    return received


def test_an_upload_that_stalls_is_refused_and_leaves_nothing(api, monkeypatch):
    before = uploads()
    monkeypatch.setattr(middleware, "STALLED_AFTER", 0.5)
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        'Content-Length: 90000\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    with open_connection(api) as connection:
        connection.sendall(head.encode() + bytes(1000))
        started = time.monotonic()
        assert receive_all(connection).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 15
    assert uploads() == before


def test_connections_without_a_request_are_closed(api, monkeypatch):
    monkeypatch.setattr(middleware, "IDLE_CONNECTION_SECONDS", 0.5)
    connections = [open_connection(api) for _ in range(50)]
    for number, connection in enumerate(connections):
        if number % 2:
            connection.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: ")
        assert receive_all(connection) == b""
        connection.close()


@pytest.mark.parametrize("name", ["process_recording", "run/score", "component_server"])
def test_addresses_that_the_page_does_not_need_are_refused(api, name):
    assert httpx.post(f"{api}/{name}", json={"data": []}).status_code == 404
    assert httpx.get(f"{api}/deep_link?session_hash=a").status_code == 404


def test_few_requests_may_wait(example_folder, judge):
    assert build_app(judge, examples=example_folder)._queue.max_size == page.WAITING
