"""The recipe of the bundled checkpoint at toy size: from photographs and a study to a folder that scores."""

from __future__ import annotations

import csv
import itertools
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageFilter
from safetensors.torch import load_file

from sind_hf.data.manifest import Manifest, ManifestEntry
from sind_hf.pretraining import bundle
from sind_hf.pretraining.recipe import MEANS, SETS, TRAININGS, Recipe
from sind_hf.pretraining.steps import average
from sind_hf.scoring.checkpoints import load_checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts/train_bundled.py"
SMALL = ["per_device_train_batch_size=8", "max_steps=2", "warmup_steps=1"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> list[str]:
    """Ten pictures that stand for photographs, and a study of eight scenes."""
    root = tmp_path_factory.mktemp("recipe")
    (root / "photos/more").mkdir(parents=True)
    (root / "study").mkdir()
    for number in range(10):
        draw(80 + number, 72).save(root / "photos" / ("more" if number % 2 else ".") / f"{number}.png")
    with (root / "study/scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mos", "scene"])
        for scene in range(8):
            for level in range(4):
                name = f"s{scene}-{level}.png"
                draw(90 + 5 * scene, 80).filter(ImageFilter.GaussianBlur(level)).save(root / "study" / name)
                writer.writerow([name, 4.5 - level + 0.03 * scene, f"s{scene}"])
    return ["--photos", str(root / "photos"), "--study", str(root / "study"), "--output", str(root / "run")]


@pytest.mark.slow
def test_from_photographs_to_a_checkpoint_and_its_results(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "LADDERS", ("gaussian_blur", "jpeg"))
    main = runpy.run_path(str(SCRIPT))["main"]
    options = ["--set", "pretrain.model.view_size=56", *(f"{part}.{change}" for part in TRAININGS for change in SMALL)]
    main(["all", *places, *options, "--bundle", str(tmp_path)])
    output = Path(places[-1])

    train, held_out = (Manifest.load(output / f"{name}.json") for name in ("train", "held_out"))
    assert len({entry.scene for entry in train.entries}) == 9
    assert {entry.scene for entry in held_out.entries} == {"0"}  # every tenth, in the order of their paths
    more, ladders = (Manifest.load(output / f"{name}.json") for name in ("more", "ladders"))
    assert {entry.scene for entry in more.entries} == {entry.scene for entry in train.entries}
    assert len(more.entries) == 9 * 8 * 6 and len(ladders.entries) == 9 * 8 * 8  # 8 crops: the others, ladders of 8
    assert len({entry.scene for entry in ladders.entries}) == 9 * 8
    for name, pieces in (("whole", 6), ("jpeg", 4)):
        entries = Manifest.load(output / f"{name}.json").entries
        assert len(entries) == 9 * pieces * 9 and len({entry.scene for entry in entries}) == 9 * pieces
        assert sum(entry.distortion is None for entry in entries) == 9 * pieces  # ladders begin with their original
    for folder, made_of in MEANS.items():
        parts = [load_file(output / name / "model.safetensors") for name in made_of.of]
        mean = load_file(output / folder / "model.safetensors")
        weights = [name for name, each in mean.items() if each.is_floating_point() and "running" not in name]
        for name in weights:
            torch.testing.assert_close(mean[name], sum(part[name] for part in parts) / len(parts))
        assert any(not torch.equal(mean[name], parts[0][name]) for name in weights)
    steps = [load_file(output / name / "model.safetensors") for name in ("averaged", "refitted", "fitted")]
    for before, after in itertools.pairwise(steps):  # the head is turned twice, and nothing else
        changed = {name for name, each in after.items() if not torch.equal(before[name], each)}
        assert changed == {"quality_head.weight", "quality_head.bias"}
    found = json.loads((output / "bundled_results.json").read_text())
    assert found["study"]["with opinions, unseen scenes"]["n"] == 32
    assert [row["kind"] for row in found["ladders"]] == ["gaussian_blur", "jpeg"]
    assert found["ladders"][0]["ladders"] == 1 and len(found["ladders"][0]["scores"]) == 6
    text = (output / "bundled_results.md").read_text()
    assert "| the study, 32 pictures | with opinions, unseen scenes |" in text and text in capsys.readouterr().out

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["score_range"] == [1.0, 5.0] and str(output) not in json.dumps(config)
    model, processor = load_checkpoint(str(tmp_path), device="cpu")
    (score,) = model.score(str(next((output / "crops").glob("*/*.png"))), processor)
    assert -100 < score < 100

    before = {path: path.stat().st_mtime_ns for path in output.glob("**/results.json")}
    assert len(before) == len(TRAININGS)
    for step in TRAININGS:
        main([step, *places, *options])
    assert before == {path: path.stat().st_mtime_ns for path in output.glob("**/results.json")}

    # A mean is made anew when what it is the mean of is newer, and left alone otherwise.
    recipe, made = Recipe(Path(places[1]), Path(places[3]), output), output / "averaged/model.safetensors"
    content, when = made.read_bytes(), made.stat().st_mtime_ns
    average("averaged", recipe)
    assert made.stat().st_mtime_ns == when
    shutil.copyfile(output / "late/model.safetensors", output / "last/model.safetensors")
    average("averaged", recipe)
    assert made.read_bytes() != content


def test_what_cannot_be_run(tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    with pytest.raises(SystemExit, match="no such folder"):
        main(["crops", "--photos", str(tmp_path / "none"), "--study", str(tmp_path)])
    with pytest.raises(SystemExit, match="0 photographs; at least 10 are needed"):
        main(["crops", "--photos", str(tmp_path), "--study", str(tmp_path), "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match=r"--set training.seed=3: must begin with one of pretrain, .*, and a dot"):
        main(["crops", "--photos", str(tmp_path), "--study", str(tmp_path), "--set", "training.seed=3"])
    opinions = ["opinions", "--photos", str(tmp_path), "--study", str(tmp_path), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="error: .*train.json"):
        main(opinions)
    (tmp_path / "run").mkdir(exist_ok=True)
    for name in SETS:
        Manifest(name, [ManifestEntry("a.png", 1.0, "a", 0)]).save(tmp_path / f"run/{name}.json")
    with pytest.raises(SystemExit, match="error: .*last"):  # no training was run
        main(opinions)
