"""Training and evaluation on two processes (gloo), run once by `helpers.two_process_training`."""

from __future__ import annotations

import json
import math

import pytest

from helpers.checkpoint_comparison import assert_same_checkpoints
from helpers.processes import start_ranks
from helpers.tiny_training import make_trainer
from helpers.two_process_training import COUNTS, RESUMPTIONS, evaluate, evaluation_options
from sind_hf import SindModel

pytestmark = [
    pytest.mark.slow,
    # of so few images curves cannot be fitted, and some scenes have one only
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
    pytest.mark.filterwarnings("ignore:report. no correlation within:sind_hf.metrics.ConstantInputWarning"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory, images, free_ports):
    folder = tmp_path_factory.mktemp("two_processes")
    images.save_to_disk(folder / "images")
    for rank in start_ranks(2, next(free_ports), "helpers.two_process_training", [folder]):
        _, err = rank.communicate(timeout=300)
        assert rank.returncode == 0, err[-3000:]
    return folder


@pytest.mark.parametrize("name", RESUMPTIONS)
def test_stopped_and_resumed_equals_straight(results, name):
    last = f"checkpoint-{RESUMPTIONS[name][2]['max_steps']}"
    assert_same_checkpoints(results / name / "straight" / last, results / name / "resumed" / last)


def test_the_processes_share_an_epoch_without_overlap(results, images):
    ranks = [json.loads((results / f"rank{rank}.json").read_text())["batches"] for rank in (0, 1)]
    epoch = [score for rank in ranks for batch in rank[:3] for score in batch]
    assert sorted(epoch) == sorted(images["score"][:])
    scene_of = dict(zip(images["score"][:], images["scene"][:], strict=True))
    for batch in [*ranks[0], *ranks[1]]:
        assert sorted([scene_of[score] for score in batch].count(scene) for scene in set(scene_of.values())) == [
            0,
            2,
            2,
        ]


def test_every_image_is_evaluated_once_as_on_one_process(results, images, tmp_path):
    ranks = [json.loads((results / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["predictions"] == ranks[1]["predictions"]
    assert ranks[0]["config"] == ranks[1]["config"]

    saved = SindModel.from_pretrained(results / "trained")
    assert saved.config.score_scale == ranks[0]["config"]["score_scale"] != 1
    alone = evaluate(make_trainer(tmp_path, None, saved, **evaluation_options()), images)
    for count in COUNTS:
        assert ranks[0]["predictions"][str(count)] == pytest.approx(alone["predictions"][count], abs=1e-5)
        for name in ("srcc", "plcc", "krcc", "rmse"):
            name = f"eval_{count}_{name}"
            assert math.isfinite(alone["metrics"][name])
            assert ranks[0]["metrics"][name] == pytest.approx(alone["metrics"][name], abs=1e-6)
