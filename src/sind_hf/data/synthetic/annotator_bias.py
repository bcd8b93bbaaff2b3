"""Simulation of opinion scores with a different annotator bias in every scene.

SIND's claim is that the opinion scores of different scenes differ by a scale and a shift. If the same people rated all
scenes under the same conditions, the differences are small. This module adds them, so that the gain of the alignment
can be measured against their size.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sind_hf.data.manifests.manifest import Manifest

__all__ = ["with_annotator_bias"]


def with_annotator_bias(manifest: Manifest, strength: float, seed: int = 0) -> Manifest:
    """Add a scale and a shift to the scores of every scene.

    With m the median score of a scene and σ the standard deviation of all scores, a score y becomes
    `m + exp(strength·u)·(y - m) + strength·σ·v`. Each scene draws u uniformly from [-1, 1] and v from the standard
    normal distribution. A strength of 1 shifts scenes against each other by as much as images differ, and stretches
    the scores of one scene up to seven times as much as those of another. The order within a scene does not change.

    Args:
        manifest: A dataset with scenes.
        strength: Size of the bias, 0 or more; 0 changes nothing.
        seed: Seed of u and v. The same seed draws the same values for every strength, so that strengths compare.

    Returns:
        The manifest with other scores and no range, because the scores leave it.

    Raises:
        ValueError: If the strength is negative or not finite.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is {strength}: give a number of 0 or more.")
    if strength == 0:
        return manifest
    scores = np.array([entry.score for entry in manifest.entries])
    _, classes = manifest.scene_classes()
    scenes = np.array(classes)
    rng = np.random.default_rng(seed)
    deviation, biased = scores.std(), scores.copy()
    for scene in np.unique(scenes):
        u, v = rng.uniform(-1, 1), rng.standard_normal()
        members = scenes == scene
        median = np.median(scores[members])
        biased[members] = median + np.exp(strength * u) * (scores[members] - median) + strength * deviation * v
    entries = [replace(entry, score=float(score)) for entry, score in zip(manifest.entries, biased, strict=True)]
    return replace(manifest, entries=entries, score=replace(manifest.score, range=None))
