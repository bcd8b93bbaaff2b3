"""Annotator bias: a scale and a shift per scene, the order within scenes untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.synthetic.annotator_bias import with_annotator_bias


def study(scenes: int = 6, pictures: int = 8) -> Manifest:
    rng = np.random.default_rng(3)
    entries = [
        ManifestEntry(f"{scene}/{index}.png", float(rng.uniform(1, 5)), f"s{scene}", scene)
        for scene in range(scenes)
        for index in range(pictures)
    ]
    return Manifest("study", entries, ScoreInfo("MOS", (1.0, 5.0)))


def by_scene(manifest: Manifest) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for entry in manifest.entries:
        found.setdefault(str(entry.scene), []).append(entry.score)
    return {scene: np.array(scores) for scene, scores in found.items()}


def test_no_strength_changes_nothing():
    assert with_annotator_bias(study(), 0) == study()


@given(strength=st.floats(0.01, 3), seed=st.integers(0, 1000))
def test_every_scene_gets_an_affine_map_of_its_own(strength, seed):
    plain, biased = study(), with_annotator_bias(study(), strength, seed)
    assert biased.score.range is None
    maps = []
    for scene, before in by_scene(plain).items():
        after = by_scene(biased)[scene]
        slope, shift = np.polyfit(before, after, 1)
        assert math.exp(-strength) - 1e-9 <= slope <= math.exp(strength) + 1e-9
        np.testing.assert_allclose(slope * before + shift, after, atol=1e-9)
        maps.append((round(slope, 9), round(shift, 9)))
    assert len(set(maps)) == len(maps)


def test_twice_the_strength_moves_every_scene_twice_as_far():
    plain = by_scene(study())
    moved = [
        {scene: np.median(scores) - np.median(plain[scene]) for scene, scores in by_scene(found).items()}
        for found in (with_annotator_bias(study(), strength, seed=5) for strength in (0.5, 1.0))
    ]
    for scene in plain:
        assert moved[1][scene] == pytest.approx(2 * moved[0][scene])
        assert moved[1][scene] != 0


def test_shifts_are_as_large_as_the_scores_differ():
    plain = study(scenes=400, pictures=5)
    biased = by_scene(with_annotator_bias(plain, 1.0))
    moved = [np.median(biased[scene]) - np.median(scores) for scene, scores in by_scene(plain).items()]
    spread = np.std([entry.score for entry in plain.entries])
    assert np.std(moved) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("strength", [-1, math.nan, math.inf])
def test_a_strength_that_is_none_is_refused(strength):
    with pytest.raises(ValueError, match="strength is"):
        with_annotator_bias(study(), strength)
