"""Opinion scores as they would be if every scene had been rated by people of another habit.

SIND's claim is that opinion scores of different scenes differ by a scale and a shift. On a set whose scenes were all
rated by the same people under the same conditions these are small; here they are put on, so that what alignment is
worth can be measured against how large they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sind_hf.data.manifests.manifest import Manifest

__all__ = ["with_annotator_bias"]


def with_annotator_bias(manifest: Manifest, strength: float, seed: int = 0) -> Manifest:
    """Put a scale and a shift of its own on the scores of every scene.

    With m the median score of a scene and σ the standard deviation of all scores, a score y becomes
    `m + exp(strength·u)·(y - m) + strength·σ·v`; u is uniform in [-1, 1] and v standard normal, drawn once per scene.
    A strength of 1 so moves scenes against each other by as much as pictures differ, and stretches the scores of the
    most generous scene seven times as far as those of the most sparing. The order within a scene never changes.

    Args:
        manifest: A set with scenes.
        strength: 0 leaves the scores alone.
        seed: Of u and v; the same seed draws the same ones for every strength, so that strengths can be compared.

    Returns:
        The manifest with other scores, and without a range, since the scores leave it.

    Raises:
        ValueError: When the strength is negative or not finite.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is {strength}: the bias of a scene has a strength of 0 or more.")
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
