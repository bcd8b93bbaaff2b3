"""Scoring on a local Ray of two actors."""

from __future__ import annotations

import builtins
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sind_hf import SindModel
from sind_hf.checkpoints import load_checkpoint
from sind_hf.scoring.images import LocatedImage
from sind_hf.scoring.job import run_job
from sind_hf.scoring.ray_engine import RayEngine
from sind_hf.scoring.scorer import score_images


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    with pytest.raises(ValueError, match=r'pip install "sind-hf\[ray\]"'):
        RayEngine("model")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A local Ray for the tests of this module. On a busy machine its services take long to start."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_raylet_start_wait_time_s", "240")
    patch.setenv("RAY_agent_register_timeout_ms", "240000")
    ray = pytest.importorskip("ray", reason="needs Ray Data, of the extra ray")
    pytest.importorskip("ray.data", reason="needs Ray Data, of the extra ray")
    yield ray
    ray.shutdown()
    patch.undo()


def actors_of_this_process() -> dict[int, psutil.Process]:
    found = {}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
def test_an_actor_that_is_killed_loses_nothing_and_scores_nothing_twice(
    cluster: Any, tiny_model: SindModel, tiny_checkpoint: Path, draw: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    names = [f"{number:03}.jpg" for number in range(60)]
    for number, name in enumerate(names):
        draw(900 + 10 * number, 1200).save(folder / name)
    (folder / "030_bad.jpg").write_text("no image")
    output = tmp_path / "s.csv"
    model, processor = load_checkpoint(str(tiny_checkpoint), device="cpu")
    engine = RayEngine(str(tiny_checkpoint), device="cpu", batch_size=1, actors=2)
    rows, killed = [], None
    for row in run_job(model, processor, [folder], output=output, batch_size=1, engine=engine):
        rows.append(row)
        if killed is None:
            actors = actors_of_this_process()
            assert len(actors) == 2
            killed = actors.popitem()[1]
            killed.kill()
    assert killed is not None and not psutil.pid_exists(killed.pid)
    files = sorted(str(path) for path in folder.iterdir())
    assert [row.image for row in rows] == files
    assert [row.image for row in rows if row.score is None] == [str(folder / "030_bad.jpg")]
    expected = [row.score for row in score_images(model, processor, files, batch_size=1)]
    assert len(set(expected)) == len(expected)
    for row, score in zip(rows, expected, strict=True):
        assert row.score == (None if score is None else pytest.approx(score, rel=0, abs=1e-5))
    assert [line.split(",")[0] for line in output.read_text().splitlines()[1:]] == files


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray Data, of the extra ray")
def test_rounds_follow_each_other(image_files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[list[int]] = []

    def score(_: RayEngine, __: Any, chunks: list[list[LocatedImage]]) -> Iterator[tuple[LocatedImage, None]]:
        rounds.append([len(chunk) for chunk in chunks])
        yield from ((image, None) for chunk in chunks for image in chunk)

    monkeypatch.setattr("sind_hf.scoring.ray_engine.CHUNKS_A_ROUND", 2)
    monkeypatch.setattr("sind_hf.scoring.ray_engine._connect", lambda: importlib.import_module("ray"))
    monkeypatch.setattr(RayEngine, "_score", score)
    images = [LocatedImage(f"#{number}", image_files[number % 5]) for number in range(25)]
    assert [image for image, _ in RayEngine("any", batch_size=1)(iter(images))] == images
    assert rounds == [[8, 8], [8, 1]]


@pytest.mark.slow
def test_what_fails_in_an_actor_is_one_line(cluster: Any, image_files: list[str]) -> None:
    images = [LocatedImage("#0", image_files[0])]
    with pytest.raises(ValueError, match="^Ray: .*there is no such checkpoint") as error:
        list(RayEngine("/gone", device="cpu", actors=1)(images))
    assert "\n" not in str(error.value)


def test_the_module_costs_nothing_where_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it does not import Ray."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        assert name.split(".")[0] != "ray"
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    spec = importlib.util.find_spec("sind_hf.scoring.ray_engine")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
