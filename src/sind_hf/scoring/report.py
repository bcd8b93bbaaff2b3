"""What a finished job says about its scores: lines for the terminal, and one HTML page that needs no network."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from sind_hf.files import counted, write_text
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, ViewMode, printable
from sind_hf.onnx.model import ScoringModel
from sind_hf.scoring.images import LocatedImage
from sind_hf.scoring.quality_maps import overlay
from sind_hf.scoring.scorer import ScoredImage, score_stream

BINS = 10
FEWEST = 10  # scores that make a histogram
BAR = 40  # characters of the longest bar
SHOWN = 50  # best images, and worst ones
LISTED = 1000  # failures
SIDE = 240  # pixels of a thumbnail's longer side
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .5rem; border: 1px solid #8888; border-radius: .5rem; }
figure img { max-width: 49%; max-height: 11rem; vertical-align: top; }
figcaption, li { overflow-wrap: anywhere; font-size: .85rem; }
figcaption b { font-size: 1.1rem; }
td, th { padding: 0 .75rem 0 0; text-align: right; font-variant-numeric: tabular-nums; }
td.bar { width: 24rem; text-align: left; }
td.bar div { height: .9rem; background: #4a7fb5; }
"""


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
    """Yield lines about scores: the number below a threshold, the median, and a histogram if there are enough.

    Args:
        scores: At least one.
        min_score: The threshold.
        percentile: Returns the share of reference images that score lower, in percent; None without such images.
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


@dataclass(frozen=True)
class ReportSettings:
    """Facts that a report states beside the results.

    Attributes:
        model: Name of the checkpoint.
        score_range: Lowest and highest possible score, if they are declared.
        min_score: Threshold that images are counted against.
    """

    model: str
    score_range: Sequence[float] | None = None
    min_score: float | None = None


def extremes(rows: Iterable[ScoredImage]) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """Return the worst and the best images, each `SHOWN` at most and none in both, the most extreme first."""
    scored = sorted((row for row in rows if row.score is not None), key=lambda row: row.score or 0)
    worst = scored[: min(SHOWN, len(scored) // 2)]
    best = scored[max(len(worst), len(scored) - SHOWN) :]
    return worst, best[::-1]


def write_report(
    path: str | os.PathLike[str],
    rows: Sequence[ScoredImage],
    images: Mapping[str, LocatedImage],
    model: ScoringModel,
    processor: SindImageProcessor,
    settings: ReportSettings,
    views: ViewMode | None = None,
) -> None:
    """Write a page with the histogram, the worst and the best images with their quality maps, and the failures.

    Args:
        path: HTML file to write.
        rows: Results of all images.
        images: The images that `extremes` returns, by name.
        model: Model that made the scores; it also makes the quality maps of the images on the page.
        processor: See `score_images`, also for `views`.
        settings: Facts that the page states beside the results.

    Raises:
        ValueError: If the page cannot be written.
    """
    worst, best = extremes(rows)
    drawings = _draw(images.values(), model, processor, views)
    scores = [row.score for row in rows if row.score is not None]
    failures = [str(row.error) for row in rows if row.score is None]
    scale = "no declared scale" if settings.score_range is None else "{:g} to {:g}".format(*settings.score_range)
    facts = [f"{counted(len(scores), 'image')} scored", f"{len(failures):,} left out"]
    facts += [f"scale: {scale}, higher is better"]
    if settings.min_score is not None:
        below = sum(score < settings.min_score for score in scores)
        facts.insert(1, f"{below:,} below {settings.min_score:g}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Image quality report</title><style>{STYLE}</style></head><body>",
        f"<h1>Image quality report</h1><p>Checkpoint: {_text(settings.model)}. {'; '.join(facts)}.</p>",
        _histogram(scores),
        _section("Worst images", worst, drawings),
        _section("Best images", best, drawings),
        _failures(failures),
        "</body></html>\n",
    ]
    write_text(Path(path), "\n".join(part for part in parts if part))


def _draw(
    images: Iterable[LocatedImage], model: ScoringModel, processor: SindImageProcessor, views: ViewMode | None
) -> dict[str, str]:
    """Return the HTML of the thumbnail of every image, with its quality map if the model makes one."""
    has_maps = model.config.local_branch == "patch"
    drawn = {}
    for located, row in score_stream(model, processor, images, views=views, batch_size=1, quality_maps=has_maps):
        name = _text(located.name)
        try:
            image = located.load()
        except ImageError as error:
            drawn[located.name] = f"<p>{_text(error)}</p>"
            continue
        image.thumbnail((SIDE, SIDE))
        drawn[located.name] = f'<img alt="{name}" src="{_encode(image)}">'
        if row.quality_map is not None:
            tinted = overlay(image, row.quality_map)
            drawn[located.name] += f' <img alt="Quality map of {name}" src="{_encode(tinted)}">'
    return drawn


def _encode(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(value: object) -> str:
    return escape(printable(value))


def _histogram(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    bins = histogram(scores)
    most = max(count for *_, count in bins)
    rows = "\n".join(
        f"<tr><td>{low:.2f} to {high:.2f}</td><td>{count:,}</td>"
        f'<td class="bar"><div style="width:{100 * count / most:.1f}%"></div></td></tr>'
        for low, high, count in bins
    )
    return f"<h2>Scores</h2><table><tr><th>score</th><th>images</th><th></th></tr>\n{rows}</table>"


def _section(title: str, rows: Sequence[ScoredImage], images: Mapping[str, str]) -> str:
    if not rows:
        return ""
    figures = "\n".join(
        f"<figure>{images.get(row.image, '')}"
        f"<figcaption><b>{row.score:.2f}</b> {_text(row.image)}</figcaption></figure>"
        for row in rows
    )
    maps = "<p>Red parts of a map lower the score of the image, and blue parts raise it.</p>" if images else ""
    return f'<h2>{title}</h2>{maps}<div class="images">\n{figures}</div>'


def _failures(failures: Sequence[str]) -> str:
    if not failures:
        return ""
    lines = "\n".join(f"<li>{_text(failure)}</li>" for failure in failures[:LISTED])
    more = f"<p>and {len(failures) - LISTED:,} more</p>" if len(failures) > LISTED else ""
    return f"<h2>Left out</h2><ul>\n{lines}</ul>{more}"
