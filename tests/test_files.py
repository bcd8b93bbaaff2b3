"""Files and folders are written completely or not at all, and two runs never share an output."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sind_hf.files import (
    atomic_file,
    atomic_folder,
    reason,
    remove_leftovers,
    sole_use,
    write_json,
    write_text,
)

SOURCE = Path(__file__).parents[1] / "src"


def only(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.txt"
    write_text(path, "old")
    with atomic_file(path) as temporary:
        temporary.write_text("né", encoding="utf-8")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "né"
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert only(path.parent) == {"report.txt": "né"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, small_files) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"srcc": 0.5})
    before = only(tmp_path)
    small_files(1000)
    with pytest.raises(ValueError, match=r"report\.json: cannot be written \(File too large\); make room") as error:
        write_json(path, {"predictions": list(range(10_000))})
    assert "\n" not in str(error.value) and only(tmp_path) == before


def test_a_folder_that_is_read_only_is_named(tmp_path: Path, read_only) -> None:
    (tmp_path / "kept.txt").write_text("old")
    read_only(tmp_path)
    with pytest.raises(ValueError, match=r"kept\.txt: cannot be written \(Permission denied\)"):
        write_text(tmp_path / "kept.txt", "new")
    assert only(tmp_path) == {"kept.txt": "old"}


def test_a_full_disk_is_called_one() -> None:
    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/path")) == "the disk is full"
    assert reason(OSError("half\na line")) == "half a line"


# --- durability --------------------------------------------------------------------------------------------------


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the list that every sync and every rename is added to: what was done, and the name."""
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    return calls


def test_a_file_is_synced_before_it_replaces_and_its_folder_after(tmp_path: Path, disk_calls) -> None:
    write_json(tmp_path / "reports" / "r.json", {"srcc": 0.5})
    assert disk_calls == [
        ("sync", tmp_path.name),  # the folder that got the new folder
        ("sync", ".r.json.tmp"),
        ("replace", "r.json"),
        ("sync", "reports"),
    ]
    disk_calls.clear()
    with atomic_file(tmp_path / "made_again.png", sync=False) as temporary:
        temporary.write_bytes(b"1")
    assert disk_calls == [("replace", "made_again.png")]


@pytest.mark.parametrize("held", [True, False])
def test_every_file_of_a_folder_is_synced_before_any_replaces(tmp_path: Path, disk_calls, held: bool) -> None:
    target = tmp_path / "model"
    if held:
        write_json(target / "config.json", 1)
        disk_calls.clear()
    with atomic_folder(target) as folder:
        (folder / "config.json").write_text("2")
        (folder / "code").mkdir()
        (folder / "code" / "model.py").write_text("3")
    first = next(index for index, (what, _) in enumerate(disk_calls) if what == "replace")
    assert {"config.json", "model.py", "code"} <= {name for _, name in disk_calls[:first]}
    assert ("sync", "model" if held else tmp_path.name) in disk_calls[first:]
    assert (target / "config.json").read_text() == "2" and (target / "code" / "model.py").read_text() == "3"


def test_only_one_module_replaces_files() -> None:
    """Whoever writes a result some other way loses it in a power failure."""
    calls = re.compile(r"os\.(replace|rename)\(|mkstemp|\.rename\(")
    found = [path.name for path in (SOURCE / "sind_hf").rglob("*.py") if calls.search(path.read_text("utf-8"))]
    # selection.py moves the user's own images, which never overwrite anything.
    assert sorted(found) == ["files.py", "selection.py"]


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_that_fails_leaves_the_old_files(tmp_path: Path, small_files) -> None:
    target = tmp_path / "model"
    for _ in range(2):  # a new folder, then one that holds files
        with pytest.raises(KeyboardInterrupt), atomic_folder(target) as folder:
            (folder / "kept.txt").write_text("new")
            raise KeyboardInterrupt
        assert [path.name for path in tmp_path.iterdir()] == (["model"] if target.exists() else [])
        write_text(target / "kept.txt", "old")
    small_files(1000)
    with pytest.raises(ValueError, match=r"model: cannot be saved \(File too large\); the earlier files") as error:  # noqa: SIM117
        with atomic_folder(target) as folder:
            (folder / "a.txt").write_text("fits")
            (folder / "kept.txt").write_bytes(bytes(10_000))
    assert "\n" not in str(error.value) and only(target) == {"kept.txt": "old"}


def test_a_file_that_another_process_writes_meanwhile_stays(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    with atomic_folder(folder) as temporary:
        (temporary / "model.safetensors").write_text("weights")
        folder.mkdir()
        (folder / "rng_state_1.pth").write_text("of the second process")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "rng_state_1.pth"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    write_text(tmp_path / "README.md", "mine")
    with atomic_folder(tmp_path) as folder:
        (folder / "config.json").write_text("{}")
    assert only(tmp_path) == {"README.md": "mine", "config.json": "{}"}


# --- what killed runs leave --------------------------------------------------------------------------------------

KILLED = """
import sys, os, signal
sys.path.insert(0, {source!r})
from files import atomic_file, atomic_folder
with atomic_file({file!r}) as file, atomic_folder({new!r}) as new, atomic_folder({old!r}) as old:
    file.write_bytes(bytes(1000))
    (new / "half").write_bytes(bytes(1000))
    (old / "half").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    file, new, old = tmp_path / "scores.csv", tmp_path / "new", tmp_path / "old"
    write_text(file, "before")
    write_text(old / "config.json", "before")
    places = {"file": str(file), "new": str(new), "old": str(old)}
    program = KILLED.format(source=str(SOURCE / "sind_hf"), **places)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert file.read_text() == "before" and (old / "config.json").read_text() == "before" and not new.exists()
    assert len(list(tmp_path.iterdir())) == 4 and len(list(old.iterdir())) == 2  # the leftovers
    write_text(file, "after")
    for folder in (new, old):
        with atomic_folder(folder) as temporary:
            (temporary / "config.json").write_text("after")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "config.json",
        "config.json",
        "new",
        "old",
        "scores.csv",
    ]


def test_leftovers_are_told_from_the_files_of_living_runs(tmp_path: Path) -> None:
    (tmp_path / ".shard-1.tmp").write_text("of a killed run")
    (tmp_path / ".mine.tmp").write_text("of something else")
    with atomic_file(tmp_path / "shard-2") as temporary:
        temporary.write_text("2")
        remove_leftovers(tmp_path, "shard-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "shard-2"]


def test_two_that_write_one_file_at_a_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    with atomic_file(path) as first:
        first.write_text("first")
        with atomic_file(path) as second:
            assert second != first
            second.write_text("second")
        assert path.read_text() == "second"
    assert only(tmp_path) == {"report.txt": "first"}


def test_a_link_or_pipe_under_the_temporary_name_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept")
    (tmp_path / ".a.txt.tmp").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / ".b.txt.tmp")
    write_text(tmp_path / "a.txt", "a")
    write_text(tmp_path / "b.txt", "b")
    assert (tmp_path / "secret").read_text() == "kept" and not (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "a.txt").read_text() + (tmp_path / "b.txt").read_text() == "ab"


def test_names_of_any_length_that_a_file_may_have(tmp_path: Path) -> None:
    write_text(tmp_path / ("é" * 127), "long")
    assert only(tmp_path) == {"é" * 127: "long"}


# --- the lock ----------------------------------------------------------------------------------------------------


def hold(output: Path) -> subprocess.Popen[str]:
    """Another process that has the output, until it is killed."""
    program = (
        f"import importlib.util, sys, time; sys.path.insert(0, {str(SOURCE / 'sind_hf')!r})\n"
        f"from files import sole_use\n"
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
