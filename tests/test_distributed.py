"""Tests of what processes share, apart from launched runs."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from helpers.processes import process_of
from sind_hf.distributed import keep_freed_memory

SIZE = 2**26  # bytes


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def bytes_kept(keep: bool, sender: Connection) -> None:
    if keep:
        keep_freed_memory()
    before = resident()
    block = b"x" * SIZE
    assert resident() - before > SIZE // 2
    del block
    sender.send(resident() - before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept_where_it_was_asked_for(keep: bool) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = process_of(bytes_kept, keep, sender)
    process.start()
    assert receiver.poll(60)
    assert (receiver.recv() > SIZE // 2) is keep
    process.join()
