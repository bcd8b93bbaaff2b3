"""A Hub on localhost for all tests of a module, and clients in this process and in others that know no other Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.utils._http
import pytest
from hub_server import WRITER, Hub, hub_server
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from run_folders import save_checkpoint

from sind_hf import cli

Answer = tuple[int, str, str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, empty, and the only one that this process knows; a writer is logged in. Retries do not wait."""
    server.repositories.clear()
    server.objects.clear()
    server.failures.clear()
    server.requests.clear()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    wait = huggingface_hub.utils._http.time
    monkeypatch.setattr(huggingface_hub.utils._http, "time", _Impatient(wait))
    close_session()  # a client that was made for another setting
    yield server
    close_session()


class _Impatient:
    """The module `time`, with waits that take no time."""

    def __init__(self, time: Any) -> None:
        self._time = time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._time, name)

    def sleep(self, seconds: float) -> None:
        """Return at once."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def elsewhere(server: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python program in a process of its own, with a cache of its own and the server as its only Hub."""

    def run(program: str, *arguments: str, package: bool) -> Any:
        home = tmp_path / "elsewhere"
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "VIRTUAL_ENV")}
        settings = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home / "hf")}
        settings |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        settings |= {"PYTHONPATH": str(ROOT / "src")} if package else {}
        return subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments],
            cwd=home,
            env=kept | settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `sind-hf push` in this process; returns exit code, standard output, standard error."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["sind-hf", "push", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert WRITER not in captured.out + captured.err
        return code, captured.out, captured.err

    return call
