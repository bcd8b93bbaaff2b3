"""One run at a time for every output, whatever becomes of the one that has it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sind_hf.output_lock import sole_use

SOURCE = Path(__file__).parents[1] / "src"


def hold(output: Path) -> subprocess.Popen[str]:
    """Another process that has the output, until it is killed."""
    program = (
        f"import importlib.util, sys, time; sys.path.insert(0, {str(SOURCE / 'sind_hf')!r})\n"
        f"from output_lock import sole_use\n"
        f"with sole_use({str(output)!r}):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    output = tmp_path / "new" / "scores.csv"
    other = hold(output)
    with pytest.raises(ValueError, match=r"scores\.csv: another run is writing there; wait .* or choose another"):
        sole_use(output).__enter__()
    with sole_use(tmp_path / "new" / "other.csv"):
        pass
    other.send_signal(signal.SIGKILL)
    other.communicate()
    for _ in range(2):  # the lock of a killed process is nobody's, and so is one that was given back
        with sole_use(output), pytest.raises(ValueError, match="another run"):
            sole_use(output).__enter__()
    assert list((tmp_path / "new").iterdir()) == []


def test_an_error_inside_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sole_use(tmp_path / "run"):
        raise RuntimeError
    started = time.monotonic()
    with sole_use(tmp_path / "run"):
        assert time.monotonic() - started < 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/run: cannot be written there \(.*\); choose another output"):
        sole_use(tmp_path / "file" / "run").__enter__()
