from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sind_hf.scoring.results import FORMATS, ScoreFile
from sind_hf.scoring.scorer import ScoredImage

IMAGES = ["b.jpg", "a, with comma.jpg", 'c "quoted"\nand broken.jpg', "d é.jpg", "gone.jpg"]
ROWS = [ScoredImage(name, score=10.1 + i / 3) for i, name in enumerate(IMAGES[:4])]
ROWS.append(ScoredImage("gone.jpg", error="gone.jpg: no such file"))
SETTINGS = {"model": "m", "views": "center"}


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{**r, "score": float(r["score"]) if r["score"] else None, "error": r["error"] or None} for r in rows]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pq.read_table(path).to_pylist()


def as_dicts(rows: list[ScoredImage]) -> list[dict[str, Any]]:
    return [{"image": row.image, "score": row.score, "error": row.error} for row in rows]


class Job:
    """What a job does with its file; leaving it by an exception is its death."""

    def __init__(self, path: Path, images: list[str], settings: Any = SETTINGS, *, resume: bool = False) -> None:
        self.scores, self.images = ScoreFile(path, settings), images
        done = self.scores.collect(resume=resume)
        self.remaining = [image for image in images if image not in done]
        self.part = self.scores.part

    def __enter__(self) -> Job:
        self.rows = self.scores.open_part().__enter__()
        self.write, self.flush = self.rows.write, self.rows.flush
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.rows.__exit__()
        if kind is None:
            self.scores.finish(self.images)


def interrupt(path: Path, rows: list[ScoredImage], images: list[str] = IMAGES, **options: Any) -> None:
    """A job that dies after these rows."""
    with pytest.raises(KeyboardInterrupt), Job(path, images, SETTINGS, **options) as file:
        for row in rows:
            file.write(row)
        raise KeyboardInterrupt


# --- finished files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_formats_agree_to_the_last_digit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores{suffix}"
    with Job(path, IMAGES, SETTINGS) as file:
        assert file.remaining == IMAGES
        for row in ROWS:
            file.write(row)
        assert not path.exists()  # it appears whole, or not at all
    assert read(path) == as_dicts(ROWS)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_extensions_may_be_upper_case(tmp_path: Path) -> None:
    with Job(tmp_path / "S.JSONL", IMAGES[:1], SETTINGS) as file:
        file.write(ROWS[0])
    assert json.loads((tmp_path / "S.JSONL").read_text())["score"] == ROWS[0].score


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_in_the_order_of_the_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores{suffix}"
    with Job(path, IMAGES, SETTINGS) as file:
        for row in reversed(ROWS):
            file.write(row)
    assert read(path) == as_dicts(ROWS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_file_names_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    path = tmp_path / f"scores{suffix}"
    with Job(path, [name], SETTINGS) as file:
        file.write(ScoredImage(name, score=3.0))
    shown = "caf\\xe9.jpg" if suffix == ".parquet" else name
    assert read(path) == [{"image": shown, "score": 3.0, "error": None}]
    if suffix == ".csv":
        assert b"caf\xe9.jpg,3.0," in path.read_bytes()  # the very bytes, so that other tools find the file


def test_two_names_that_are_not_utf8_stay_two_in_parquet(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"caf\xe8.jpg")]
    with Job(tmp_path / "s.parquet", names, SETTINGS) as file:
        for name in names:
            file.write(ScoredImage(name, score=3.0))
    assert len(set(pq.read_table(tmp_path / "s.parquet")["image"].to_pylist())) == 2


def test_formulas_are_prefixed_on_request(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0.png", "+1.png", "-1.png", "@sum.png", "\ta.png", "a=b.png"]
    for prefix in (False, True):
        output = ScoreFile(tmp_path / "s.csv", SETTINGS, prefix_formulas=prefix)
        output.collect()
        with output.open_part() as part:
            for name in names:
                part.write(ScoredImage(name, score=-1.5))
        output.finish(names)
        rows = read(tmp_path / "s.csv")
        assert [row["image"] for row in rows] == [f"'{name}" if prefix else name for name in names[:-1]] + names[-1:]
        assert [row["score"] for row in rows] == [-1.5] * len(names)


def test_an_empty_job_has_an_empty_file(tmp_path: Path) -> None:
    for suffix in FORMATS:
        with Job(tmp_path / f"scores{suffix}", [], SETTINGS):
            pass
        assert read(tmp_path / f"scores{suffix}") == []


def test_many_rows_of_parquet(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(20_001)]  # two full row groups and a rest
    with Job(tmp_path / "s.parquet", names, SETTINGS) as file:
        for i, name in enumerate(names):
            file.write(ScoredImage(name, score=float(i)))
    table = pq.read_table(tmp_path / "s.parquet")
    assert table["image"].to_pylist() == names and table["score"].to_pylist() == list(map(float, range(20_001)))


def test_an_older_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("older")
    interrupt(path, ROWS[:2])
    assert path.read_text() == "older"
    with Job(path, IMAGES, SETTINGS, resume=True) as file:
        for row in ROWS[2:]:
            file.write(row)
    assert read(path) == as_dicts(ROWS)


# --- interrupted jobs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_resuming_leaves_out_what_is_done(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores{suffix}"
    interrupt(path, [ROWS[2], ROWS[0]])
    assert not path.exists()
    interrupt(path, [ROWS[1]], resume=True)  # and once more
    with Job(path, IMAGES, SETTINGS, resume=True) as file:
        assert file.remaining == [IMAGES[3], IMAGES[4]]
        for row in ROWS[3:]:
            file.write(row)
    assert read(path) == as_dicts(ROWS)
    assert not file.part.exists()


def test_every_way_to_cut_a_part_is_resumed(tmp_path: Path) -> None:
    """Wherever the machine died, no row is lost that was whole, and none is made up from a half."""
    path = tmp_path / "scores.jsonl"
    interrupt(path, ROWS[:3])
    part = path.with_name("scores.jsonl.part")
    whole = part.read_bytes()
    for length in range(len(whole) + 1):
        part.write_bytes(whole[:length])
        done = max(whole[:length].count(b"\n") - 1, 0)
        with Job(path, IMAGES, SETTINGS, resume=True) as file:
            assert file.remaining == IMAGES[done:]
            for row in ROWS[done:]:
                file.write(row)
        assert read(path) == as_dicts(ROWS)
        path.unlink()


def test_images_that_failed_are_tried_again_and_the_last_answer_counts(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    interrupt(path, [ScoredImage(IMAGES[0], error="was being copied"), ROWS[1]])
    with Job(path, IMAGES[:2], SETTINGS, resume=True) as file:
        assert file.remaining == [IMAGES[0]]
        file.write(ROWS[0])
    assert read(path) == as_dicts(ROWS[:2])


def test_images_may_have_come_and_gone_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    interrupt(path, ROWS[:2])
    images = ["new.jpg", IMAGES[1]]
    with Job(path, images, SETTINGS, resume=True) as file:
        assert file.remaining == ["new.jpg"]
        file.write(ScoredImage("new.jpg", score=1.0))
    assert [row["image"] for row in read(path)] == images


def test_a_part_without_scores_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    interrupt(path, [])
    interrupt(path, ROWS[4:])  # errors only
    with Job(path, IMAGES, SETTINGS) as file:
        assert file.remaining == IMAGES
        for row in ROWS:
            file.write(row)
    assert read(path) == as_dicts(ROWS)


def test_rows_are_on_disk_after_a_flush(tmp_path: Path) -> None:
    with Job(tmp_path / "s.csv", IMAGES, SETTINGS) as file:
        file.write(ROWS[0])
        file.flush()
        assert len(file.part.read_text().splitlines()) == 2
        for row in ROWS[1:]:
            file.write(row)


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(path: Path, *words: str, settings: Any = SETTINGS, **options: Any) -> None:
    with pytest.raises(ValueError) as error:
        Job(path, IMAGES, settings, **options)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_part_is_continued_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    interrupt(path, ROWS[:2])
    before = Path(f"{path}.part").read_bytes()
    refused(path, "scores.csv.part", "2 scores")
    assert Path(f"{path}.part").read_bytes() == before


def test_a_part_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    interrupt(path, ROWS[:2])
    other = {**SETTINGS, "views": "nine"}
    for resume in (True, False):
        refused(path, "scores.csv.part", "'center'", "'nine'", "delete it", settings=other, resume=resume)
    assert len(Path(f"{path}.part").read_text().splitlines()) == 3


def test_damaged_lines_are_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    for damage in ("42", "{}", '{"image": "b.jpg"}', '{"image": "b.j', "\0\0\0"):
        interrupt(path, ROWS[:2])
        with open(f"{path}.part", "a") as part:
            part.write(damage + "\n" + json.dumps(as_dicts(ROWS)[2]) + "\n")
        with Job(path, IMAGES, SETTINGS, resume=True) as file:
            assert file.remaining == IMAGES[2:]
            for row in ROWS[2:]:
                file.write(row)
        assert read(path) == as_dicts(ROWS)


def test_unusable_paths(tmp_path: Path) -> None:
    refused(tmp_path / "scores.xlsx", "unknown format", ".csv, .jsonl, .parquet")
    refused(tmp_path / "scores", "unknown format")
