"""Which way the scores of a dataset run, read from the scores themselves.

LIVE and CSIQ publish DMOS (lower is better), and files that others made of them hold DMOS or scores that are flipped
already, under the same names. Flipping those once more trains a model upside down, so the data decide:

- Ladders: versions of one image under one distortion get worse from level to level (CSIQ, TID2013, KADID-10k).
- Pristine images: they share the best score (LIVE).
- Limits: a score that is only possible on one of the two scales (LIVE).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sind_hf.data.manifests.catalog import DatasetFacts

#: Two files of one dataset with a lower correlation do not hold the same opinions.
LEAST_CORRELATION = 0.5

# A few pairs settle it: levels are far apart, and real ladders are all but free of contradictions.
_FEWEST_PAIRS = 3
_FEWEST_PRISTINE = 3
# Rounded scores of published lists may pass the end of a scale by a rounding error.
_ROUNDING = 1e-6


def direction_shown(facts: DatasetFacts, scored: Sequence[tuple[str, float]]) -> bool | None:
    """Return whether higher scores mean better images.

    Args:
        facts: What the catalog knows about the dataset.
        scored: Manifest paths with their scores, which are finite.

    Returns:
        True or False as the scores show; None where they do not tell or contradict each other.
    """
    scores = [score for _, score in scored]
    found = {_by_ladders(facts, scored), _by_pristine(facts, scores), _by_limits(facts, scores)} - {None}
    return found.pop() if len(found) == 1 else None


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation of pairs of scores; None for fewer than two, and where one side is constant."""
    first, second = np.asarray(pairs, np.float64).reshape(-1, 2).T
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _by_ladders(facts: DatasetFacts, scored: Sequence[tuple[str, float]]) -> bool | None:
    if facts.ladder is None:
        return None
    ladders: dict[str, list[tuple[int, float]]] = {}
    for image, score in scored:
        if match := re.fullmatch(facts.ladder, image.rpartition("/")[2], re.IGNORECASE):
            ladders.setdefault(match[1].lower(), []).append((int(match[2]), score))
    falling, rising = 0, 0
    for ladder in ladders.values():
        for (level, score), (other_level, other_score) in combinations(sorted(ladder), 2):
            if level < other_level:
                falling += score > other_score
                rising += score < other_score
    if falling + rising < _FEWEST_PAIRS or abs(falling - rising) < (falling + rising) / 2:
        return None
    return falling > rising


def _by_pristine(facts: DatasetFacts, scores: Sequence[float]) -> bool | None:
    if not facts.pristine_images or not scores:
        return None
    best, count = Counter(scores).most_common(1)[0]
    above, below = sum(score > best for score in scores), sum(score < best for score in scores)
    # Opinions of distorted images differ; a few of them are better than the pristine ones by chance.
    if count < _FEWEST_PRISTINE or abs(above - below) < 0.8 * max(above + below, 1):
        return None
    return below > above


def _by_limits(facts: DatasetFacts, scores: Sequence[float]) -> bool | None:
    if facts.higher_is_better or facts.score_range is None or not scores:
        return None
    low, high = facts.score_range
    margin = _ROUNDING * (high - low)
    if low < 0 and low - margin <= min(scores) < -margin and max(scores) <= high + margin:
        return False
    if low < 0 and high + margin < max(scores) <= high - low + margin and min(scores) >= -margin:
        return True
    return None
