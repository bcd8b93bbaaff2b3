"""Scoring jobs that share the work, and jobs that are killed: as commands in other processes."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image

from helpers.processes import Command, start, start_ranks
from sind_hf.checkpoints import load_checkpoint
from sind_hf.scoring.scorer import score_images

pytestmark = pytest.mark.slow
COUNT = 40


@pytest.fixture
def images(draw: Any, tmp_path: Path) -> Path:
    """Forty images and one that is none, in the middle."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        draw(90 + 3 * number, 100).save(folder / f"{number:02}.png")
    (folder / "07_bad.png").write_text("no image")
    return folder


def start_one(arguments: list[Any], slow: float = 0) -> Command:
    """Start `sind-hf score`; with `slow`, every image takes at least that many seconds."""
    return start("helpers.noted_score", ["score", *arguments, "--device", "cpu"], SLOW=str(slow))


def start_two(arguments: list[Any], port: int, slow: float = 0) -> list[Command]:
    """Start `sind-hf score` on two processes."""
    return start_ranks(2, port, "helpers.noted_score", ["score", *arguments, "--device", "cpu"], SLOW=str(slow))


def ended(*running: Command) -> tuple[list[int | None], str]:
    """Return the exit codes, and all that was written to standard error."""
    err = "".join(command.communicate(timeout=240)[1] for command in running)
    return [command.returncode for command in running], err


def kept_rows(output: Path) -> list[dict[str, Any]]:
    """The whole rows of all parts."""
    rows = []
    for part in output.parent.glob(f"{output.name}.part*"):
        lines = part.read_text().splitlines(keepends=True)
        rows += [json.loads(line) for line in lines[1:] if line.endswith("\n")]
    return rows


def kill_after(running: list[Command], output: Path, rows: int) -> list[str]:
    """Kill a job, with all its processes at once, when that many rows are kept; return the scored images."""
    deadline = time.monotonic() + 200
    while len(kept_rows(output)) < rows:
        assert running[0].poll() is None, f"ended before it could be killed: {running[0].communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    processes = [psutil.Process(command.pid) for command in running]
    family = [*processes, *(child for process in processes for child in process.children(recursive=True))]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=30)
    assert not output.exists()
    return [row["image"] for row in kept_rows(output) if row["score"] is not None]


def noted(folder: Path) -> list[tuple[int, str]]:
    """(process, image) of every image that was looked at since the last call."""
    found = []
    for file in sorted(folder.glob("seen-*.txt")):
        found += [(int(file.stem.split("-")[1]), line) for line in file.read_text().splitlines()]
        file.unlink()
    return found


def table(output: Path) -> dict[str, float | None]:
    if output.suffix == ".parquet":
        return {row["image"]: row["score"] for row in pq.read_table(output).to_pylist()}
    with open(output, newline="") as file:
        rows = [(row["image"], row["score"]) for row in csv.DictReader(file)]
    assert len(dict(rows)) == len(rows)
    return {image: float(score) if score else None for image, score in rows}


def same_scores(found: dict[str, float | None], checkpoint: Path, files: list[str], **tolerance: float) -> None:
    """Compare with the scores of this process; no two of them are the same, so none can be in another's place."""
    model, processor = load_checkpoint(str(checkpoint), device="cpu")
    expected = [row.score for row in score_images(model, processor, files, batch_size=4)]
    assert len(set(expected)) == len(expected)
    assert [score is None for score in found.values()] == [score is None for score in expected]
    scores = [score for score in found.values() if score is not None]
    assert scores == pytest.approx([score for score in expected if score is not None], **tolerance)


def test_two_processes_write_the_file_of_one(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    output = tmp_path / "two.csv"
    arguments = [images, "--model", tiny_checkpoint, "--batch-size", 4, "--output", output]
    codes, err = ended(*start_two(arguments, free_port))
    assert codes == [1, 1], err  # of the bad image
    assert "40 images scored" in err and "1 left out" in err and err.count("images scored") == 1
    assert err.count("left out: ") == 1 and "07_bad.png: not an image" in err
    seen = noted(tmp_path)
    assert Counter(process for process, _ in seen) == {0: 21, 1: 20}  # eleven batches, the last one of one image
    assert max(Counter(image for _, image in seen).values()) == 1
    found = table(output)
    files = sorted(str(path) for path in images.iterdir())
    assert list(found) == files
    same_scores(found, tiny_checkpoint, files, rel=0, abs=1e-6)
    assert not list(tmp_path.glob("two.csv?*"))


def test_two_processes_are_killed_and_one_goes_on_and_the_other_way_round(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_ports: Iterator[int]
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    output = tmp_path / "s.csv"
    arguments = [images, "--model", tiny_checkpoint, "--batch-size", 2, "--output", output]
    first = kill_after(start_two(arguments, next(free_ports), slow=0.1), output, rows=8)
    assert len(list(tmp_path.glob("s.csv.part-1"))) == 1 and len(first) >= 7
    noted(tmp_path)
    second = kill_after([start_one([*arguments, "--resume"], slow=0.1)], output, rows=len(first) + 6)
    assert set(first) < set(second) and len(set(second)) == len(second)
    assert not {image for _, image in noted(tmp_path)} & set(first)
    codes, err = ended(*start_two([*arguments, "--resume"], next(free_ports)))
    assert codes == [1, 1], err
    seen = noted(tmp_path)
    assert {process for process, _ in seen} == {0, 1} and not {image for _, image in seen} & set(second)
    assert f"{COUNT - len(second)} images scored" in err
    found = table(output)
    files = sorted(str(path) for path in images.iterdir())
    assert list(found) == files
    same_scores(found, tiny_checkpoint, files, rel=2e-6)  # batches are others than without the interruptions
    assert not list(tmp_path.glob("s.csv?*"))


def test_a_dataset_is_killed_and_goes_on(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    files = sorted(str(path) for path in images.glob("??.png"))
    Dataset.from_dict({"image": files}).cast_column("image", Image()).to_parquet(tmp_path / "d.parquet")
    output = tmp_path / "s.parquet"
    arguments = [tmp_path / "d.parquet", "--image-root", tmp_path, "--model", tiny_checkpoint]
    arguments += ["--batch-size", 4, "--output", output]
    kept = kill_after([start_one([*arguments, "--workers", 1], slow=0.1)], output, rows=8)
    noted(tmp_path)
    codes, err = ended(start_one([*arguments, "--resume"]))
    assert codes == [0] and f"{COUNT - len(kept)} images scored" in err, err
    assert not {image for _, image in noted(tmp_path)} & set(kept)
    found = table(output)
    assert list(found) == [f"{tmp_path}/d.parquet#{number}" for number in range(COUNT)]
    same_scores(found, tiny_checkpoint, files, rel=0, abs=1e-6)


def test_what_stops_one_process_stops_all(tiny_checkpoint: Path, images: Path, tmp_path: Path, free_port: int) -> None:
    codes, err = ended(*start_two([tmp_path / "gone.txt", "--model", tiny_checkpoint], free_port))
    assert codes == [2, 2] and err.count("gone.txt: cannot read this list of images") == 2
