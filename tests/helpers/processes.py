"""Commands in separate processes, without the ten seconds that importing torch and transformers takes each time.

A server process imports them once. Each command is forked from it, so it shares nothing with the process of the test
but its arguments and its environment.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["sind_hf.experiments.runner", "sind_hf.scoring.dataset_rows", "sind_hf.scoring.job"])


class Command:
    """A running `python -m MODULE ARGUMENTS`; the methods are those of `subprocess.Popen`."""

    def __init__(self, module: str, arguments: Sequence[object], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        streams = [*map(str, self._streams)]
        self._process = process_of(_run, module, [*map(str, arguments)], dict(environment), os.getcwd(), streams)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was written to standard output and standard error."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"still running after {timeout} s: {self._streams[1].read_text()[-2000:]}")
        out, err = (stream.read_text() if stream.exists() else "" for stream in self._streams)
        return out, err


def process_of(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Return a process, not yet started, that calls a function and forks its own children."""
    return _FORKED.Process(target=_call, args=(function, arguments))


def _call(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # otherwise the children come from another such server
    gc.freeze()  # keeps imported objects out of garbage collections, which every training asks for
    function(*arguments)


def start(module: str, arguments: Sequence[object], **environment: str) -> Command:
    """Start `python -m MODULE ARGUMENTS` with additions to the environment of this process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return Command(module, arguments, inherited | environment)


def start_ranks(count: int, port: int, module: str, arguments: Sequence[object], **environment: str) -> list[Command]:
    """Start the processes of a launched run, as torchrun and `accelerate launch` do on one machine."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared |= {"LOCAL_WORLD_SIZE": str(count)} | environment
    return [start(module, arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]


def _run(module: str, arguments: list[str], environment: dict[str, str], folder: str, streams: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
