"""Reading the direction of a dataset's scores from the scores themselves.

LIVE and CSIQ publish DMOS (lower is better). Files that others derived from them hold DMOS or flipped scores under the
same names, and flipping those once more would train a model upside down. Three things tell the direction:

- Ladders: versions of one image under one distortion get worse from level to level (CSIQ, TID2013, KADID-10k).
- Pristine images share the best score (LIVE).
- Limits: some scores are possible on only one of the two scales (LIVE).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sind_hf.data.manifests.catalog import DatasetFacts

#: Two files of one dataset with a lower correlation hold different opinions.
LEAST_CORRELATION = 0.5

# A few pairs are enough: levels are far apart, and real ladders have almost no contradictions.
_FEWEST_PAIRS = 3
_FEWEST_PRISTINE = 3
# The scores of published lists may pass the end of the scale by a rounding error.
_ROUNDING = 1e-6


def direction_shown(facts: DatasetFacts, scored: Sequence[tuple[str, float]]) -> bool | None:
    """Return whether higher scores mean better images; None if the scores do not tell, or contradict each other.

    Args:
        facts: Facts about the dataset from the catalog.
        scored: Manifest paths with their scores, which are finite.
    """
    scores = [score for _, score in scored]
    found = {_by_ladders(facts, scored), _by_pristine(facts, scores), _by_limits(facts, scores)} - {None}
    return found.pop() if len(found) == 1 else None


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Pearson's correlation of pairs of scores; None for fewer than two pairs or constant scores."""
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
    # Opinions of distorted images differ, and by chance a few of them beat the pristine images.
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
