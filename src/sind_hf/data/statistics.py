"""Statistics of a manifest: counts and scores per scene, compared with the catalog, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sind_hf.data.manifests.catalog import CATALOG, DatasetFacts
from sind_hf.data.manifests.manifest import Manifest, ManifestError, ScoreInfo
from sind_hf.data.manifests.score_direction import direction_shown
from sind_hf.files import counted
from sind_hf.image_processing_sind import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level = Literal["ok", "note", "problem"]

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 16  # of a histogram, over the declared range or the scores
#: The smallest deviation that the alignment divides by, as in the training loss.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class ScoreStatistics:
    """Statistics of the scores of one scene, or of all images, as the manifest gives them.

    `median` is the lower one of the two middle scores if their number is even, `deviation` the mean absolute deviation
    from it, and `histogram` the number of images in each bin of `ManifestStatistics.edges`.
    """

    name: str
    count: int
    mean: float
    median: float
    deviation: float
    minimum: float
    maximum: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class CatalogCheck:
    """One comparison with the catalog.

    Attributes:
        level: `"ok"`, `"note"` for what may be intended (a split, other scene labels), or `"problem"`.
        what: The finding, in one line.
    """

    level: Level
    what: str


@dataclass(frozen=True)
class ManifestStatistics:
    """Statistics of a manifest: of all images together and of each scene, in the order of `Manifest.scene_classes`.

    `edges` are those of the histogram bins, the same for all scenes, and `checks` the comparison with the catalog.
    """

    dataset: str
    score: ScoreInfo
    edges: tuple[float, ...]
    overall: ScoreStatistics
    scenes: tuple[ScoreStatistics, ...]
    checks: tuple[CatalogCheck, ...]


def lower_median(scores: NDArray[np.float64]) -> float:
    """Return the lower median of `scores` (N,), as `torch.median` does."""
    middle = (len(scores) - 1) // 2
    return float(np.partition(scores, middle)[middle])


def mean_absolute_deviation(scores: NDArray[np.float64]) -> float:
    """Return the mean distance of `scores` (N,) from their lower median."""
    return float(np.abs(scores - lower_median(scores)).mean())


def aligned(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores (N,) of one scene with median 0 and mean absolute deviation 1, as the loss aligns them.

    Constant scores give zeros.
    """
    return (scores - lower_median(scores)) / max(mean_absolute_deviation(scores), _SMALLEST_DEVIATION)


def manifest_statistics(manifest: Manifest) -> ManifestStatistics:
    """Count and describe the scores of a valid manifest and compare them with the catalog.

    Raises:
        ManifestError: If the manifest has no entries.
    """
    scores, by_scene = scores_by_scene(manifest, [float(entry.score) for entry in manifest.entries])
    low, high = manifest.score.range or (float(scores.min()), float(scores.max()))
    # Scores outside the declared range must not vanish from the histogram; the checks report them.
    low, high = min(low, float(scores.min())), max(high, float(scores.max()))
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    return ManifestStatistics(
        dataset=manifest.dataset,
        score=manifest.score,
        edges=tuple(edges.tolist()),
        overall=_describe("all", scores, edges),
        scenes=tuple(_describe(name, values, edges) for name, values in by_scene.items()),
        checks=tuple(compare_with_catalog(manifest)),
    )


def scores_by_scene(
    manifest: Manifest, scores: Sequence[float]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return the scores of a manifest's entries as an array, and those of each scene by its name.

    Raises:
        ManifestError: If the manifest has no entries.
    """
    if not manifest.entries:
        raise ManifestError(f"{manifest.dataset}: the manifest has no entries; there is nothing to count")
    names, classes = manifest.scene_classes()
    values, index = np.asarray(scores, dtype=np.float64), np.asarray(classes)
    return values, {name: values[index == number] for number, name in enumerate(names)}


def _describe(name: str, scores: NDArray[np.float64], edges: NDArray[np.float64]) -> ScoreStatistics:
    return ScoreStatistics(
        name=name,
        count=len(scores),
        mean=float(scores.mean()),
        median=lower_median(scores),
        deviation=mean_absolute_deviation(scores),
        minimum=float(scores.min()),
        maximum=float(scores.max()),
        histogram=tuple(np.histogram(scores, edges)[0].tolist()),
    )


def compare_with_catalog(manifest: Manifest) -> list[CatalogCheck]:
    """Compare the number of images, the scores and the scenes with the catalog."""
    facts = CATALOG.get(manifest.dataset)
    if facts is None:
        what = "is not a published dataset, so there are no published numbers to compare with"
        return [CatalogCheck("note", f"{manifest.dataset} {what}")]
    found = [_compare_count(manifest, facts), *_compare_scores(manifest, facts), *_compare_scenes(manifest, facts)]
    return [CatalogCheck(level, what) for level, what in found]


def _compare_count(manifest: Manifest, facts: DatasetFacts) -> tuple[Level, str]:
    count = len(manifest)
    if facts.images is None:
        return "note", f"{counted(count, 'image')}; the catalog has no exact number for {facts.display_name}"
    if count == facts.images:
        return "ok", f"all {count:,} images of {facts.display_name}"
    if count < facts.images:
        missing = facts.images - count
        return "note", f"{count:,} of {facts.images:,} images; {missing:,} are missing unless this is a split"
    return "problem", f"{counted(count, 'image')}, but {facts.display_name} has only {facts.images:,}"


def _compare_scores(manifest: Manifest, facts: DatasetFacts) -> Iterator[tuple[Level, str]]:
    flipped = False
    if manifest.score.higher_is_better != facts.higher_is_better:
        direction = "higher" if facts.higher_is_better else "lower"
        shown = direction_shown(facts, [(entry.image, entry.score) for entry in manifest.entries])
        flipped = shown == manifest.score.higher_is_better
        if flipped:
            yield "note", f"the scores are flipped: {direction} is better in {facts.display_name} itself"
        else:
            yield "problem", f"score direction: {direction} is better in {facts.display_name}"
    if facts.score_range is not None:
        low, high = facts.score_range
        if flipped:
            low, high = 0.0, high - low
        # Means that were computed elsewhere may pass the end of the scale by a rounding error.
        margin = 1e-9 * (high - low)
        outside = sum(not low - margin <= entry.score <= high + margin for entry in manifest.entries)
        if outside:
            yield (
                "problem",
                f"{counted(outside, 'score')} outside {low:.4g} to {high:.4g}, the range of {facts.display_name}",
            )
        else:
            yield "ok", f"scores within {low:.4g} to {high:.4g}"


def _compare_scenes(manifest: Manifest, facts: DatasetFacts) -> Iterator[tuple[Level, str]]:
    counts = Counter(entry.domain_id for entry in manifest.entries if entry.domain_id is not None)
    if not counts:
        yield "note", "no domain ids; scenes cannot be compared"
        return
    if facts.domains and (unknown := sorted(set(counts) - set(facts.domains))):
        listed = ", ".join(map(str, unknown[:5]))
        yield "problem", f"domain ids that {facts.display_name} does not have: {listed}"
    if facts.domain_kind == "whole set" or not facts.scene_counts:
        return
    complete = len(manifest) == facts.images
    different = "; ".join(
        f"{facts.domains.get(domain_id, domain_id)} {counts[domain_id]:,} (catalog {expected:,})"
        for domain_id, expected in facts.scene_counts.items()
        if (counts[domain_id] != expected if complete else counts[domain_id] > expected)
    )
    if different and facts.fixed_scenes:
        yield "problem", f"images per {facts.domain_kind}: {different}"
    elif different:
        yield "note", f"the scene labels differ from the published manifest: {different}"
    elif complete:
        yield "ok", f"every {facts.domain_kind} has as many images as in the catalog"


def sparkline(histogram: Sequence[int]) -> str:
    """Return a histogram as one line of block characters. Empty bins stay blank, so that small counts are visible."""
    top = max(histogram, default=0)
    return "".join(" " if not count else _BARS[min(7, (8 * count - 1) // top)] for count in histogram)


def render_statistics(statistics: ManifestStatistics) -> Group:
    """Return the statistics as something that a `rich.console.Console` can print."""
    score, overall = statistics.score, statistics.overall
    span = f"{score.range[0]:.4g} to {score.range[1]:.4g}" if score.range else "no declared range"
    direction = "higher is better" if score.higher_is_better else "lower is better"
    heading = Text.assemble(
        (printable(statistics.dataset), "bold"),
        f"  {counted(overall.count, 'image')}  {printable(score.name)}, {span}, {direction}",
        overflow="fold",
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scene", overflow="fold", min_width=8)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("mean", "median", "dev", "min", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(f"{statistics.edges[0]:.4g} … {statistics.edges[-1]:.4g}", no_wrap=True)
    largest = max(scene.count for scene in statistics.scenes)
    for row in (*statistics.scenes, *((overall,) if len(statistics.scenes) > 1 else ())):
        bar = "" if row is overall else _bar(row.count / largest)
        values = (row.mean, row.median, row.deviation, row.minimum, row.maximum)
        table.add_row(
            Text(printable(row.name)),
            f"{row.count:,}",
            Text(bar, "cyan"),
            *(f"{value:.4g}" for value in values),
            Text(sparkline(row.histogram), "green"),
            style="bold" if row is overall else None,
        )
    styles = {"ok": ("✓", "green"), "note": ("•", "yellow"), "problem": ("✗", "red")}
    checks = []
    for check in statistics.checks:
        mark, color = styles[check.level]
        checks.append(Text(f"{mark} {printable(check.what)}", color))
    return Group(heading, Text(""), table, Text(""), *checks)


def _bar(share: float) -> str:
    eighths = max(1, round(share * 5 * 8))
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def density(scores: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian kernel density of `scores` at the points of `grid` (Scott's bandwidth)."""
    from scipy.stats import gaussian_kde

    return np.asarray(gaussian_kde(scores)(grid), dtype=np.float64)


def mean_overlap(scenes: Sequence[NDArray[np.float64]]) -> float:
    """Return the mean overlap of the score distributions of two scenes, from 0 (disjoint) to 1 (equal).

    It is the mean, over all pairs of scenes, of the area under both of their densities; 1 for a single scene. The
    scores of a scene must not be constant.
    """
    everything = np.concatenate(list(scenes))
    margin = 0.2 * np.ptp(everything)
    grid = np.linspace(everything.min() - margin, everything.max() + margin, 600)
    densities = np.stack([density(scores, grid) for scores in scenes])
    mass = densities / densities.sum(axis=1, keepdims=True)
    shared = [np.minimum(mass[first], mass[second]).sum() for first in range(len(mass)) for second in range(first)]
    return float(np.mean(shared)) if shared else 1.0
