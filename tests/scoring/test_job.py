from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.scoring import images as images
from sind_hf.scoring.job import choose_workers, run_job
from sind_hf.scoring.scorer import ScoredImage


def run(model: SindModel, paths: Any, **options: Any) -> list[ScoredImage]:
    return list(run_job(model, SindImageProcessor(), paths, **options))


def table(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="") as file:
        return [(row["image"], row["score"]) for row in csv.DictReader(file)]


def test_a_folder_becomes_a_table_and_overlays(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"output": tmp_path / "s.csv", "quality_maps": tmp_path / "maps" / "deep"}
    found = run(tiny_model, [tmp_path], batch_size=2, progress=lambda *x: told.append(x), **options)
    names = [*image_files, str(tmp_path / "text.jpg")]
    assert [row.image for row in found] == names
    assert table(tmp_path / "s.csv") == [(row.image, "" if row.score is None else str(row.score)) for row in found]
    expected = tiny_model.score(image_files, SindImageProcessor())
    assert [row.score for row in found] == [*map(lambda x: pytest.approx(x, rel=1e-5), expected), None]
    assert told == [(i, 6) for i in range(1, 7)]
    maps = sorted((tmp_path / "maps" / "deep").iterdir())
    assert len(maps) == 5
    for row, path in zip(found, maps, strict=False):
        with Image.open(path) as shown, Image.open(row.image) as original:
            assert shown.size == original.size
            assert json.loads(shown.text["quality_map"])[6][6] == pytest.approx(row.quality_map[6, 6], abs=1e-5)


def test_an_image_named_twice_is_scored_once(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n".join(image_files[:2]))
    found = run(tiny_model, [image_files[1], tmp_path / "list.txt", tmp_path])
    assert [row.image for row in found] == [image_files[i] for i in (1, 0, 2, 3, 4)]


def test_nothing_but_rows_without_files(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = run(tiny_model, image_files[:2], views="nine")
    assert [row.score for row in found] == pytest.approx(
        tiny_model.score(image_files[:2], SindImageProcessor(), views="nine"), rel=1e-5
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", ["closed", "cut"])
def test_an_interrupted_job_goes_on_without_scoring_twice(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    output, part = tmp_path / "s.csv", tmp_path / "s.csv.part"
    options: dict[str, Any] = {"output": output, "batch_size": 2}
    whole = run(tiny_model, image_files, output=tmp_path / "whole.csv")
    stream = run_job(tiny_model, SindImageProcessor(), image_files, **options)
    for _ in range(3):
        next(stream)
    if ending == "cut":  # the third row, half written
        stream.close()
        part.write_bytes(part.read_bytes()[:-9])
    stream.close()
    done = 2 if ending == "cut" else 3
    assert not output.exists()
    with pytest.raises(ValueError, match=f"holds {done} scores of an interrupted job"):
        run(tiny_model, image_files, **options)

    loaded: list[str] = []
    make_views = SindImageProcessor.make_views
    monkeypatch.setattr(
        SindImageProcessor,
        "make_views",
        lambda self, image, mode: loaded.append(image) or make_views(self, image, mode),
    )
    told: list[tuple[int, int]] = []
    found = run(tiny_model, image_files, resume=True, progress=lambda *x: told.append(x), **options)
    assert loaded == image_files[done:] == [row.image for row in found]
    assert told == [(i, 5) for i in range(done + 1, 6)]
    # One image may differ in the last digits with the batch it is scored in.
    assert [name for name, _ in table(output)] == image_files
    assert [float(score) for _, score in table(output)] == pytest.approx([row.score for row in whole], rel=1e-5)
    assert not part.exists()
    loaded.clear()
    run(tiny_model, image_files[:1], resume=True, output=output)  # nothing to resume: a new job
    assert loaded == image_files[:1]


def test_a_part_of_another_job_is_refused(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    stream = run_job(tiny_model, SindImageProcessor(), image_files, output=tmp_path / "s.csv")
    next(stream)
    stream.close()

    def refused(message: str, processor: SindImageProcessor | None = None, **options: Any) -> None:
        with pytest.raises(ValueError, match=f"s.csv.part: was made with {message}; delete it"):
            options |= {"output": tmp_path / "s.csv", "resume": True}
            list(run_job(tiny_model, processor or SindImageProcessor(), image_files, **options))

    refused(r"views 'center' \(now 'nine'\)", views="nine")
    refused("quality_maps None .*", quality_maps=tmp_path / "maps")
    refused("another preprocessor configuration", SindImageProcessor(resize_backend="pillow"))
    tiny_model.config.score_scale *= 2
    refused("another model configuration")
    tiny_model.config.score_scale /= 2
    with torch.no_grad():
        tiny_model.quality_head.bias += 1
        refused("other weights")
        tiny_model.quality_head.bias -= 1
    tiny_model.to(torch.bfloat16)
    refused("dtype None .now 'bfloat16'., other weights")


def test_an_image_that_was_replaced_is_scored_again(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced since, or of the same relative name in another working folder."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number, file in enumerate(image_files if folder == "a" else image_files[::-1]):
            shutil.copy2(file, tmp_path / folder / f"{number}.png")
    monkeypatch.chdir(tmp_path / "a")
    paths, output = [f"{number}.png" for number in range(5)], tmp_path / "s.csv"

    def interrupted() -> None:
        stream = run_job(tiny_model, SindImageProcessor(), paths, output=output, batch_size=1)
        for _ in range(4):
            next(stream)
        stream.close()

    interrupted()
    shutil.copy2("3.png", "1.png")
    found = run(tiny_model, paths, output=output, batch_size=1, resume=True)
    assert [row.image for row in found] == ["1.png", "4.png"]
    scores = [float(score) for _, score in table(output)]
    assert scores[1] == scores[3] and len(set(scores)) == 4

    interrupted()
    monkeypatch.chdir(tmp_path / "b")
    found = run(tiny_model, paths, output=output, batch_size=1, resume=True)
    assert [row.image for row in found] == paths
    assert [float(score) for _, score in table(output)] == [row.score for row in found]


@pytest.mark.parametrize(
    ("cores", "processes", "images", "workers"),
    [
        (2, 1, 10, 0),
        (2, 1, 1000, 2),
        (1, 1, 1000, 0),
        (6, 1, None, 6),
        (64, 1, 1000, 8),
        (16, 4, 1000, 4),
        (2, 2, 1000, 0),
    ],
)
def test_workers_are_chosen_from_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, images: int | None, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert choose_workers(images) == workers


def test_every_batch_reaches_the_disk(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    """What a killed process leaves behind: at most the images of one batch are scored again."""
    stream = run_job(tiny_model, SindImageProcessor(), image_files, output=tmp_path / "s.csv", batch_size=2)
    for count in range(1, 6):
        next(stream)
        lines = (tmp_path / "s.csv.part").read_text().count("\n")
        assert max(lines - 1, 0) >= count // 2 * 2  # the first line holds the settings
    assert list(stream) == []


def test_an_image_that_goes_away_before_its_overlay(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = images.load_image
    gone = image_files[1]
    monkeypatch.setattr(images, "load_image", lambda name: load("gone.jpg" if name == gone else name))
    found = run(tiny_model, image_files, quality_maps=tmp_path / "maps", output=tmp_path / "s.jsonl")
    assert [row.score is None for row in found] == [False, True, False, False, False]
    assert found[1].error == "gone.jpg: no such file"
    assert len(list((tmp_path / "maps").iterdir())) == 4


def test_unusable_options_score_nothing(
    tiny_model: SindModel, tiny_clip_config: dict[str, Any], image_files: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "file").write_text("")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "No images to score"),
        ([tmp_path / "empty.txt"], {}, "No images to score"),
        (image_files, {"output": tmp_path / "s.xlsx"}, "unknown format"),
        (image_files, {"output": tmp_path / "file" / "s.csv"}, "cannot be written there"),
        (image_files, {"quality_maps": tmp_path / "file"}, "cannot create this folder"),
    ]
    for paths, options, message in cases:
        with pytest.raises(ValueError, match=message):
            next(run_job(tiny_model, SindImageProcessor(), paths, **options))
    mapless = SindModel(SindConfig(vision_config=tiny_clip_config, local_branch="none")).eval()
    with pytest.raises(ValueError, match="No quality map"):
        run(mapless, image_files, quality_maps=tmp_path / "maps", output=tmp_path / "s.csv")
    assert run(mapless, image_files[:1], output=tmp_path / "s.csv")[0].score is not None  # and no part is in the way
