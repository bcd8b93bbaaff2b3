"""A head fitted to opinions: exact where nothing holds it back, unmoved where everything does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.manifest import Manifest, ManifestEntry
from sind_hf.data.preparation import prepare
from sind_hf.pretraining.head import Head, embed, fit_head

RNG = np.random.default_rng(3)
EMBEDDINGS = RNG.normal(size=(60, 5)) * [1, 2, 0.5, 1, 3] + 4
START = Head(np.array([1.0, 0.2, 0, 0, 0]), 0.5)
SPREAD = EMBEDDINGS.std(0)


def test_without_a_ridge_it_is_least_squares() -> None:
    true = Head(np.array([0.6, 0.5, -0.4, 0.1, 0.05]), 2.0)
    found = fit_head(START, EMBEDDINGS, true(EMBEDDINGS), SPREAD, strength=1e-9)
    np.testing.assert_allclose(found(EMBEDDINGS), true(EMBEDDINGS), atol=1e-5)
    np.testing.assert_allclose(found.weight, true.weight, atol=1e-5)


def test_a_strong_ridge_leaves_the_order_of_the_scores() -> None:
    opinions = 3 * START(EMBEDDINGS) - 7 + RNG.normal(size=60)
    found = fit_head(START, EMBEDDINGS, opinions, SPREAD, strength=1e9)
    slope, shift = np.polyfit(START(EMBEDDINGS), opinions, 1)
    np.testing.assert_allclose(found(EMBEDDINGS), slope * START(EMBEDDINGS) + shift, atol=1e-6)


def test_between_them_it_moves_on_the_way() -> None:
    opinions = Head(np.array([0.8, 0.3, -0.6, 0, 0]), 1.0)(EMBEDDINGS) + 0.1 * RNG.normal(size=60)
    errors = [
        np.abs(fit_head(START, EMBEDDINGS, opinions, SPREAD, strength)(EMBEDDINGS) - opinions).mean()
        for strength in (1e-6, 0.1, 3, 1e6)
    ]
    assert errors == sorted(errors) and errors[0] < 0.5 * errors[-1]


def test_a_change_is_measured_by_what_it_does_to_other_pictures() -> None:
    opinions = START(EMBEDDINGS) + EMBEDDINGS[:, 2]
    free, held = (
        fit_head(START, EMBEDDINGS, opinions, np.where(np.arange(5) == 2, spread, SPREAD), 1.0) for spread in (0.5, 50)
    )
    assert abs(held.weight[2]) < 0.1 * abs(free.weight[2])


def test_steps_of_distortion_go_on_lowering_the_score() -> None:
    opinions = START(EMBEDDINGS) + EMBEDDINGS[:, 2]
    worse = -np.abs(RNG.normal(size=(40, 5)))
    worse[:, 2] *= -1  # as the opinions have it, what is worse would score higher
    free, held = (fit_head(START, EMBEDDINGS, opinions, SPREAD, 0.01, steps) for steps in (None, worse))
    rises = [np.maximum(worse @ head.weight, 0).sum() for head in (free, held)]
    assert rises[0] > 1 and rises[1] < 0.2 * rises[0]
    # Where the score falls anyway they change nothing.
    down = -10 * np.sign(free.weight) * np.ones((3, 5))
    again = fit_head(START, EMBEDDINGS, opinions, SPREAD, 0.01, down)
    np.testing.assert_allclose(again.weight, free.weight, atol=1e-9)


def test_scores_that_fall_are_no_start() -> None:
    with pytest.raises(ValueError, match="nothing to start from"):
        fit_head(START, EMBEDDINGS, -START(EMBEDDINGS), SPREAD)


def test_the_model_scores_as_the_head(photographs: dict[str, Path], tmp_path: Path) -> None:
    tiny = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    torch.manual_seed(0)
    model = SindModel(SindConfig(vision_config=tiny, view_size=56, score_scale=2.0, score_shift=1.0)).eval()
    processor = SindImageProcessor(size={"height": 56, "width": 56}, views="nine")
    root = next(iter(photographs.values())).parent
    names = sorted(path.name for path in photographs.values())[:3]
    manifest = Manifest("some", [ManifestEntry(name, float(i), "all", 0) for i, name in enumerate(names)])
    prepare(manifest, root, tmp_path, view_size=56)
    embeddings = embed(model, processor, manifest, tmp_path)
    files = [str(root / name) for name in names]
    np.testing.assert_allclose(Head.of(model)(embeddings), model.score(files, processor), atol=1e-5)
    other = Head(Head.of(model).weight[::-1].copy(), 3.5)
    other.put_into(model)
    np.testing.assert_allclose(other(embeddings), model.score(files, processor), atol=1e-5)
