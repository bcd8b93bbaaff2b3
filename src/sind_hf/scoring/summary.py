"""What a finished job says about its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

BINS = 10
FEWEST = 10  # scores that make a histogram
BAR = 40  # characters of the longest bar


def histogram(scores: Sequence[float]) -> list[tuple[float, float, int]]:
    """Count scores in `BINS` equal bins from the lowest to the highest.

    Returns:
        (lower end, upper end, count) of every bin, lowest first; one bin where all scores are equal.
    """
    low, high = min(scores), max(scores)
    if not high > low:
        return [(low, high, len(scores))]
    counts, edges = np.histogram(scores, BINS, (low, high))
    return [(float(edges[bin]), float(edges[bin + 1]), int(count)) for bin, count in enumerate(counts)]


def summary_lines(
    scores: Sequence[float], min_score: float | None = None, percentile: Callable[[float], float] | None = None
) -> Iterator[str]:
    """Yield lines about scores: how many are below a threshold, the median, a histogram if there are enough.

    Args:
        scores: At least one.
        min_score: The threshold.
        percentile: Returns the share of reference images that score lower, in percent; None where there are none.
    """
    if min_score is not None:
        below = sum(score < min_score for score in scores)
        yield f"{below:,} of {len(scores):,} images score below {min_score:g}"
    if len(scores) < FEWEST:
        return
    median = float(np.median(scores))
    where = "" if percentile is None else f", better than {percentile(median):.0f} % of the reference images"
    yield f"median {median:.2f}{where}"
    bins = histogram(scores)
    most = max(count for *_, count in bins)
    for low, high, count in bins:
        bar = "█" * max(round(BAR * count / most), 1 if count else 0)
        yield f"{low:9.2f} to {high:.2f} {count:8,}  {bar}".rstrip()
