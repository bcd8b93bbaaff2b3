"""From a trainer and from the command line to the Hub, and back in processes that know nothing but its address."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from huggingface_hub import ModelCard
from run_folders import make_run, save_checkpoint

from helpers.tiny_training import make_images, make_model, make_trainer
from sind_hf import SindImageProcessor, SindModel
from sind_hf.hub.model_card import METRICS

REPO = "user/sind-tiny"
ABSENT = """
import sys

class Absent:  # the tests' own interpreter may have the package installed: here every import of it fails
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sind_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
LOAD = """
import json, sys
repo_id, first, *files = sys.argv[1:]
trust = "sind_hf" not in sys.modules
options = {"trust_remote_code": True} if trust else {}
from transformers import AutoImageProcessor, AutoModel, pipeline

answers = {}
for revision in ("main", first):
    model = AutoModel.from_pretrained(repo_id, revision=revision, **options)
    processor = AutoImageProcessor.from_pretrained(repo_id, revision=revision, **options)
    pipe = pipeline("image-quality-assessment", model=repo_id, revision=revision, **options)
    answers[revision] = {
        "score": model.score(files, processor),
        "pipeline": [answer["score"] for answer in pipe(files, batch_size=2)],
        "nine": list(pipe((file for file in files), batch_size=2, views="nine", output_quality_map=True)),
        "code": type(model).__module__,
    }
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_what_is_pushed_scores_the_same_elsewhere(
    hub: Hub,
    push: Callable[..., Any],
    elsewhere: Callable[..., Any],
    tmp_path: Path,
    image_files: list[str],
) -> None:
    files = image_files[:3]
    # First by the trainer …
    (tmp_path / "images").mkdir()
    data = make_images(tmp_path / "images", 12)
    trainer = make_trainer(
        tmp_path / "run",
        data,
        make_model("clip", initializer_range=1.0),
        eval_dataset={"study": data},
        max_steps=2,
        calibrate=True,
        score_range=[0.0, 70.0],
        hub_model_id=REPO,
    )
    trainer.train()
    measured = trainer.evaluate()
    first = str(trainer.push_to_hub(license="mit")).rpartition("/")[2]
    assert first == hub.repositories[REPO].branches["main"]
    assert {path for path in hub.files(REPO) if path.endswith(".bin")} == set()
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert {result.metric_type: result.metric_value for result in card.data.eval_results or ()} == {
        name: measured[f"eval_study_{name}"] for name in METRICS
    }
    by_the_trainer = trainer.model.score(files, trainer.processing_class)

    # … then another model from the command line.
    folder = make_run(save_checkpoint(tmp_path / "other", seed=1))
    code, out, _ = push(folder, "--repo-id", REPO, "--message", "Second", "--license", "mit")
    second = hub.repositories[REPO].branches["main"]
    assert code == 0 and f"files pushed to {REPO}: {hub.url}/{REPO}/commit/{second}" in out
    assert [commit.message for commit in hub.repositories[REPO].history()][:2] == ["Second", "End of training"]
    assert "figures/koniq10k_held_out_scatter.png" in hub.files(REPO)
    by_command = SindModel.from_pretrained(folder).score(files, SindImageProcessor.from_pretrained(folder))
    assert by_command != pytest.approx(by_the_trainer, rel=1e-3)

    # Back in processes that have nothing but the address, one of them without the package.
    model, processor = SindModel.from_pretrained(folder), SindImageProcessor.from_pretrained(folder)
    nine = model.score(files, processor, views="nine")
    for program, package, code in (
        (ABSENT + LOAD, False, "transformers_modules."),
        ("import sind_hf\n" + LOAD, True, "sind_hf.modeling_sind"),
    ):
        back = elsewhere(program, REPO, first, *files, package=package)
        assert back.returncode == 0, back.stderr[-2000:]
        answers = json.loads(back.stdout.splitlines()[-1])
        for revision, expected in (("main", by_command), (first, by_the_trainer)):
            assert answers[revision]["score"] == pytest.approx(expected, rel=1e-5)
            assert answers[revision]["pipeline"] == pytest.approx(expected, rel=1e-5)
            assert answers[revision]["code"].startswith(code)
        assert [answer["score"] for answer in answers["main"]["nine"]] == pytest.approx(nine, rel=1e-5)
        assert [len(answer["quality_map"]) for answer in answers["main"]["nine"]] == [7, 7, 7]


@pytest.mark.slow
def test_the_cards_snippets_run_as_they_stand(
    hub: Hub, push: Callable[..., Any], elsewhere: Callable[..., Any], tmp_path: Path, draw: Any
) -> None:
    """Each is a whole program; the second one where the package cannot be imported."""
    folder = make_run(save_checkpoint(tmp_path / "checkpoint"))
    assert push(folder, "--repo-id", REPO)[0] == 0
    (tmp_path / "elsewhere").mkdir()
    draw(320, 240).save(tmp_path / "elsewhere" / "photo.jpg")
    photo = str(tmp_path / "elsewhere" / "photo.jpg")
    model, processor = SindModel.from_pretrained(folder), SindImageProcessor.from_pretrained(folder)
    (center,), (nine,) = (model.score([photo], processor, views=views) for views in ("center", "nine"))
    assert center != pytest.approx(nine, rel=1e-3)
    card = hub.files(REPO)["README.md"].decode()
    with_package, with_transformers = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    for program, package, scores in (
        (with_package, True, [center]),
        (ABSENT + with_transformers, False, [center, nine]),
    ):
        done = elsewhere(program, package=package)
        assert done.returncode == 0, done.stderr[-2000:]
        first, *others = done.stdout.splitlines()
        found, _, scale = first.partition("] ")
        assert scale == "[0, 100]"
        assert [float(found.strip("[")), *map(float, others)] == pytest.approx(scores, rel=1e-5)
