from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from sind_hf import ImageError, SindConfig, SindImageProcessor, SindModel, SindPipeline

TASK = "image-quality-assessment"


@pytest.fixture
def pipe(tiny_model: SindModel) -> SindPipeline:
    return pipeline(TASK, model=tiny_model, image_processor=SindImageProcessor())


def scores(answers: Any) -> list[float]:
    return [answer["score"] for answer in answers]


def test_a_folder_is_enough_and_nothing_is_asked(
    tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("asked for trust in remote code")

    monkeypatch.setattr("builtins.input", refuse)
    pipe = pipeline(TASK, model=str(tiny_checkpoint))
    assert isinstance(pipe, SindPipeline) and type(pipe.model) is SindModel
    expected = tiny_model.score(image_files, SindImageProcessor())
    assert scores(pipe(image_files)) == pytest.approx(expected, rel=1e-4)


def test_one_image_gives_one_answer(pipe: SindPipeline, image_files: list[str], tiny_model: SindModel) -> None:
    expected = tiny_model.score(image_files[:1], SindImageProcessor())[0]
    answer = pipe(image_files[0])
    assert answer == {
        "score": pytest.approx(expected, rel=1e-4),
        "score_range": [0, 100],
        "higher_is_better": True,
    }
    assert json.loads(json.dumps(answer)) == answer
    assert pipe(Image.open(image_files[0]))["score"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("views", ["center", "nine"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_change_nothing(
    pipe: SindPipeline, image_files: list[str], tiny_model: SindModel, batch_size: int, views: str
) -> None:
    """Five images in batches of two: also the last, smaller batch keeps its rows apart."""
    files = image_files if views == "center" else image_files[:3]
    expected = tiny_model.score(files, SindImageProcessor(), views=views)
    found = pipe(files, batch_size=batch_size, views=views, output_quality_map=True)
    assert scores(found) == pytest.approx(expected, rel=1e-4)
    bias = tiny_model.quality_head.bias.item()
    width = tiny_model.head_widths[0]
    inputs = SindImageProcessor()(files, views=views, return_tensors="pt")
    output = tiny_model(**inputs, output_quality_map=True)
    for row, answer in enumerate(found):
        values = answer["quality_map"]
        assert [len(line) for line in values] == [7] * 7
        mean = sum(map(sum, values)) / 49
        raw = bias + (output.global_embeds[row] @ tiny_model.quality_head.weight[0, :width]).item() + mean
        assert answer["score"] == pytest.approx(10 * raw + 50, rel=1e-4)
        assert values[2][5] == pytest.approx(output.quality_map[row, 2, 5].item(), rel=1e-3, abs=1e-4)


def test_lists_generators_and_datasets(pipe: SindPipeline, image_files: list[str]) -> None:
    expected = scores(pipe(image_files))
    assert len(set(expected)) == 5
    assert scores(pipe(file for file in image_files)) == pytest.approx(expected)
    assert scores(pipe([Image.open(file) for file in image_files], batch_size=2)) == pytest.approx(expected)
    dataset = Dataset.from_dict({"photo": image_files}).cast_column("photo", ImageFeature())
    assert scores(pipe(KeyDataset(dataset, "photo"), batch_size=2)) == pytest.approx(expected)
    encoded = dataset.cast_column("photo", ImageFeature(decode=False))
    assert scores(pipe(KeyDataset(encoded, "photo"))) == pytest.approx(expected)


def test_every_collection_has_an_answer_for_every_image(
    pipe: SindPipeline, tiny_model: SindModel, image_files: list[str]
) -> None:
    files = image_files[:2]
    arrays = np.stack([np.asarray(Image.open(file).resize((300, 240))) for file in files])
    dataset = Dataset.from_dict({"n": [0, 1], "photo": files}).cast_column("photo", ImageFeature())
    expected = scores(pipe(files))
    expected_arrays = scores(pipe([Image.fromarray(array) for array in arrays]))
    collections: list[tuple[Any, list[float]]] = [
        (dataset["photo"], expected),
        (dataset, expected),
        (tuple(files), expected),
        (np.array(files), expected),
        (pandas.Series(files, index=[7, 9]), expected),
        (arrays, expected_arrays),
        (torch.from_numpy(arrays).permute(0, 3, 1, 2), expected_arrays),
        (torch.from_numpy(arrays).permute(0, 3, 1, 2)[:1], expected_arrays[:1]),
    ]
    for collection, wanted in collections:
        answers = pipe(collection, batch_size=2)
        assert isinstance(answers, list) and scores(answers) == pytest.approx(wanted, rel=1e-4), type(collection)
        assert tiny_model.score(collection, SindImageProcessor()) == pytest.approx(wanted, rel=1e-4)
    for stream in (iter(files), map(str, files), dataset.to_iterable_dataset(), (file for file in files)):
        answers = pipe(stream)
        assert not isinstance(answers, list) and scores(answers) == pytest.approx(expected, rel=1e-4)
    assert [pipe([]), pipe(()), pipe(np.array([], dtype=object)), list(pipe(iter(())))] == [[], [], [], []]
    assert "score" in pipe(arrays[0])
    with pytest.raises(ValueError, match="no image column .columns: n.: pass one column"):
        pipe(dataset.remove_columns("photo"))


def test_a_mistyped_option_names_the_nearest(tiny_model: SindModel, pipe: SindPipeline) -> None:
    with pytest.raises(TypeError, match="Unknown option 'view': did you mean 'views'"):
        pipe("a.png", view="nine")
    with pytest.raises(TypeError, match="Unknown option 'output_quality_maps': did you mean 'output_quality_map'"):
        pipe([], output_quality_maps=True)
    with pytest.raises(TypeError, match="Unknown option 'x': choose from views, "):
        pipeline(TASK, model=tiny_model, image_processor=SindImageProcessor(), x=1)


def test_a_generator_is_read_as_answers_are_taken(pipe: SindPipeline, image_files: list[str]) -> None:
    """A million images need not fit into memory: nothing is read far ahead of what has been answered."""
    expected = scores(pipe(image_files, views="nine"))
    read = []

    def images(rounds: int) -> Iterator[Image.Image]:
        for number in range(rounds):
            read.append(number)
            yield Image.open(image_files[number % len(image_files)])

    answers = pipe(images(1000), batch_size=2, num_workers=0, views="nine", output_quality_map=True)
    first = [next(iter(answers))] + [next(answers) for _ in range(2)]
    assert scores(first) == pytest.approx(expected[:3], rel=1e-4)
    assert len(read) <= 6
    assert [len(answer["quality_map"]) for answer in first] == [7, 7, 7]


class ImageFolder(TorchDataset):
    """What a user's own dataset may be: a length, and images by number."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.files[index], "name": f"number {index}"}


def test_datasets_of_other_makes(pipe: SindPipeline, image_files: list[str]) -> None:
    expected = scores(pipe(image_files))
    own = KeyDataset(ImageFolder(image_files), "image")
    assert scores(pipe(own, batch_size=3)) == pytest.approx(expected, rel=1e-4)
    nine = scores(pipe(image_files, views="nine"))
    answers = list(pipe(own, batch_size=3, views="nine", output_quality_map=True))
    assert scores(answers) == pytest.approx(nine, rel=1e-4)
    assert all(len(line) == 7 for answer in answers for line in answer["quality_map"])
    streamed = Dataset.from_dict({"photo": image_files}).cast_column("photo", ImageFeature()).to_iterable_dataset()
    found = scores(pipe((row["photo"] for row in streamed), batch_size=2))
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_scored_is_named(pipe: SindPipeline, image_files: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "text.png"
    bad.write_text("no image")
    with pytest.raises(ImageError, match="text.png"):
        list(pipe([image_files[0], str(bad)], batch_size=2))
    with pytest.raises(ValueError, match="ten"):
        pipe(image_files[0], views="ten")


def test_options_can_be_set_once(tiny_model: SindModel, image_files: list[str]) -> None:
    pipe = pipeline(
        TASK, model=tiny_model, image_processor=SindImageProcessor(), views="nine", output_quality_map=True
    )
    answer = pipe(image_files[0])
    assert "quality_map" in answer
    nine = tiny_model.score(image_files[:1], SindImageProcessor(), views="nine")[0]
    assert answer["score"] == pytest.approx(nine, rel=1e-4)
    center = tiny_model.score(image_files[:1], SindImageProcessor())[0]
    assert pipe(image_files[0], views="center")["score"] == pytest.approx(center, rel=1e-4)
    assert center != pytest.approx(nine, rel=1e-3)


def test_the_processors_own_setting_counts(tiny_model: SindModel, image_files: list[str]) -> None:
    pipe = pipeline(TASK, model=tiny_model, image_processor=SindImageProcessor(views="nine"))
    nine = tiny_model.score(image_files[:2], SindImageProcessor(), views="nine")
    assert scores(pipe(image_files[:2], batch_size=2)) == pytest.approx(nine, rel=1e-4)


def test_no_range_is_none_and_no_patch_tokens_no_map(tiny_clip_config: dict[str, Any], image_files: list[str]) -> None:
    for branch in ("class", "none"):
        model = SindModel(SindConfig(vision_config=dict(tiny_clip_config), local_branch=branch)).eval()
        pipe = pipeline(TASK, model=model, image_processor=SindImageProcessor())
        assert pipe(image_files[0])["score_range"] is None
        with pytest.raises(ValueError, match="No quality map"):
            pipe(image_files[0], output_quality_map=True)


# --- where the package is not installed ------------------------------------------------------------------------------

STRANGER = """
import json, sys

class Absent:  # the tests' own interpreter may have the package installed: here every import of it fails
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sind_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import sind_hf
    sys.exit("the package can be imported, but must not be")
except ModuleNotFoundError:
    pass
from transformers import AutoImageProcessor, AutoModel, pipeline
folder, *files = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
pipe = pipeline("image-quality-assessment", model=folder, trust_remote_code=True)
again = pipeline(
    "image-quality-assessment", model=folder, trust_remote_code=True, views="nine", output_quality_map=True
)
model.save_pretrained("copy")
processor.save_pretrained("copy")
copy = pipeline("image-quality-assessment", model="copy", trust_remote_code=True)
print(json.dumps({
    "score": model.score(files, processor),
    "pipeline": [answer["score"] for answer in pipe(files, batch_size=2)],
    "nine": again(files[0])["score"],
    "map": again(files[0])["quality_map"],
    "copy": [answer["score"] for answer in copy(files, batch_size=2)],
    "trust": model.__class__.__module__,
}))
"""


def run_stranger(folder: str | Path, files: list[str], home: Path) -> dict[str, Any]:
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, str(folder), *files],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_checkpoint_carries_its_code(
    tiny_checkpoint: Path, tiny_model: SindModel, image_files: list[str], tmp_path: Path
) -> None:
    names = {path.name for path in tiny_checkpoint.glob("*.py")}
    assert names == {f"{name}_sind.py" for name in ("configuration", "modeling", "image_processing", "pipeline")} | {
        "losses.py"
    }
    found = run_stranger(tiny_checkpoint, image_files, tmp_path / "elsewhere")
    expected = tiny_model.score(image_files, SindImageProcessor())
    assert found["score"] == pytest.approx(expected, rel=1e-5)
    assert found["pipeline"] == pytest.approx(expected, rel=1e-5)
    pipe = pipeline(TASK, model=tiny_model, image_processor=SindImageProcessor())
    nine = pipe(image_files[0], views="nine", output_quality_map=True)
    assert found["nine"] == pytest.approx(nine["score"], rel=1e-5)
    assert found["map"][3] == pytest.approx(nine["quality_map"][3], rel=1e-4, abs=1e-5)
    assert found["trust"].startswith("transformers_modules.")
    # What such a process saves is as good as the original, and loads here without a question.
    copy = tmp_path / "elsewhere" / "copy"
    again = pipeline(TASK, model=str(copy))
    assert scores(again(image_files)) == pytest.approx(expected, rel=1e-4)
    assert found["copy"] == pytest.approx(expected, rel=1e-5)
