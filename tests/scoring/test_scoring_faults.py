"""What can go wrong while images are scored: nothing is lost, the rest is done, and the message says what to do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sind_hf import SindImageProcessor, SindModel
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.distributed import worker_deaths_named
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.scoring.job import run_job
from sind_hf.scoring.scorer import ScoredImage

Patch = pytest.MonkeyPatch


def run(model: SindModel, paths: Any, **options: Any) -> list[ScoredImage]:
    return list(run_job(model, SindImageProcessor(), paths, batch_size=1, **options))


def die_at(patch: Patch, path: str) -> None:
    """Loader processes are killed while they load an image, as the system does when memory runs out."""
    make_views, main = SindImageProcessor.make_views, os.getpid()

    def make_or_die(self: SindImageProcessor, image: Any, mode: Any) -> Any:
        if str(image) == path and os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return make_views(self, image, mode)

    patch.setattr(SindImageProcessor, "make_views", make_or_die)


def refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_vanish_or_change_while_running(
    tiny_model: SindModel, draw: Any, tmp_path: Path, workers: int
) -> None:
    images = [tmp_path / f"{number:02}.png" for number in range(20)]
    for image in images:
        draw(60, 50).save(image)
    stream = run_job(tiny_model, SindImageProcessor(), [tmp_path], batch_size=1, workers=workers)
    first = next(stream)
    images[17].unlink()
    images[18].write_bytes(images[18].read_bytes()[:300])
    draw(90, 20).save(images[19])
    found = [first, *stream]
    assert [row.image for row in found] == [str(image) for image in images]
    assert [index for index, row in enumerate(found) if row.score is None] == [17, 18]
    assert found[17].error == f"{images[17]}: no such file"
    assert str(found[18].error).startswith(f"{images[18]}: damaged")
    assert found[19].score != found[0].score  # of the new content


@pytest.fixture
def many_files(draw: Any, tmp_path: Path) -> list[str]:
    """More than two processes load ahead."""
    files = [str(tmp_path / f"{number:02}.png") for number in range(12)]
    for file in files:
        draw(60, 50).save(file)
    return files


def test_a_killed_loader_keeps_the_scores_and_resumes(
    tiny_model: SindModel, many_files: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "s.jsonl"
    with Patch.context() as patch:
        die_at(patch, many_files[8])
        options: dict[str, Any] = {"workers": 2, "output": output}
        refused(
            lambda: run(tiny_model, many_files, **options),
            "A process that loads images has died (Killed)",
            "use fewer workers",
            f"the scores so far are in {output}.part, resume to continue",
        )
    assert not output.exists()
    found = run(tiny_model, many_files, workers=2, output=output, resume=True)
    assert many_files[8] in [row.image for row in found] and len(found) <= 12 - 4
    assert [json.loads(line)["error"] for line in output.read_text().splitlines()] == [None] * 12


def test_an_evaluation_whose_loader_is_killed(
    tiny_model: SindModel, image_files: list[str], monkeypatch: Patch
) -> None:
    root = Path(image_files[0]).parent
    entries = [ManifestEntry(Path(name).name, float(score)) for score, name in enumerate(image_files)]
    die_at(monkeypatch, image_files[2])
    manifest = Manifest("small", entries)
    refused(
        lambda: evaluate_manifest(tiny_model, SindImageProcessor(), manifest, root, workers=2, views="center"),
        "has died (Killed)",
        "use fewer workers",
    )


def test_a_full_disk_keeps_the_scores_and_resumes(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    output, part = tmp_path / "s.csv", tmp_path / "s.csv.part"
    output.write_text("of yesterday")
    row = len(image_files[0]) + 60
    small_files(100 + 3 * row)
    refused(lambda: run(tiny_model, image_files, output=output), f"{part}: cannot be written (", "make room, and")
    small_files(1 << 40)
    assert output.read_text() == "of yesterday" and part.exists()
    found = run(tiny_model, image_files, output=output, resume=True)
    assert 0 < len(found) < 5
    assert output.read_text().count("\n") == 6 and not part.exists()


def test_a_disk_that_is_full_at_the_end_leaves_the_results_before(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    folder = tmp_path / "results"
    output = folder / "s.parquet"
    run(tiny_model, image_files[:1], output=output)
    before = output.read_bytes()
    small_files(len(before) - 100)  # enough for the rows, too little for the table
    refused(lambda: run(tiny_model, image_files, output=output), f"{output}: cannot be written (")
    small_files(1 << 40)
    assert {path.name for path in folder.iterdir()} == {"s.parquet", "s.parquet.part"}
    assert output.read_bytes() == before
    assert run(tiny_model, image_files, output=output, resume=True) == []  # all was scored
    assert output.read_bytes() != before and not (folder / "s.parquet.part").exists()


def test_a_folder_of_maps_that_fills_up(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    small_files(2000)
    maps = tmp_path / "maps"
    refused(lambda: run(tiny_model, image_files, quality_maps=maps), str(maps), "cannot be written (")
    assert list(maps.iterdir()) == []  # no half image


def test_folders_that_are_read_only(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, read_only: Callable[[Path], Path]
) -> None:
    (tmp_path / "locked").mkdir()
    locked = read_only(tmp_path / "locked")
    told: list[tuple[int, int]] = []
    for options in ({"output": locked / "s.csv"}, {"quality_maps": locked / "maps"}):
        refused(
            lambda options=options: run(tiny_model, image_files, progress=lambda *x: told.append(x), **options),
            str(locked),
            "Permission denied",
        )
    assert told == [] and list(locked.iterdir()) == []


def test_two_jobs_never_share_an_output(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    output = tmp_path / "s.csv"
    first = run_job(tiny_model, SindImageProcessor(), image_files, output=output, batch_size=1)
    next(first)
    refused(lambda: run(tiny_model, image_files, output=output, resume=True), "another run is writing there")
    assert len(list(first)) == 4
    assert output.read_text().count("\n") == 6


def test_names_that_are_not_utf8_reach_every_file(tiny_model: SindModel, draw: Any, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    folder.mkdir()
    draw(60, 50).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", folder / os.fsdecode(b"caf\xe9.png"))
    output, maps = folder / os.fsdecode(b"r\xe9sultats.csv"), folder / os.fsdecode(b"cartes \xe9")
    (row,) = run(tiny_model, [folder], output=output, quality_maps=maps, workers=1)
    assert row.score is not None and row.error is None
    assert b"/caf\xe9.png," in output.read_bytes()
    (drawn,) = maps.iterdir()
    with Image.open(drawn) as image:
        assert np.asarray(image).shape == (50, 60, 3)


def test_a_death_that_shows_as_a_broken_connection_first() -> None:
    """An image's memory is fetched from the process that loaded it; torch tells of the death only afterwards."""

    def news(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def broken() -> None:
        with worker_deaths_named("go on"):
            raise ConnectionResetError(104, "Connection reset by peer")

    before = signal.signal(signal.SIGALRM, news)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        refused(broken, "has died (Killed)", "; go on.")
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ConnectionResetError):  # of something else
        broken()
    with pytest.raises(RuntimeError, match="out of memory"), worker_deaths_named("go on"):
        raise RuntimeError("CUDA out of memory")
