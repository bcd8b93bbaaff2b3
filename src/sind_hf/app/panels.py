"""Verdicts as HTML. Pictures travel inside it, so that nothing of a visitor's lies on the server's disk."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from sind_hf.app.judge import Judge, Verdict
from sind_hf.scoring.quality_maps import COLOURS, overlay
from sind_hf.scoring.results import COLUMNS


@dataclass(frozen=True)
class Scale:
    """How scores of one model are written.

    Attributes:
        range: Lowest and highest score of the training data's scale, or None when none is declared.
        reference: Number of reference pictures; 0 without a reference.
    """

    range: tuple[float, float] | None
    reference: int = 0

    @classmethod
    def of(cls, judge: Judge) -> Scale:
        """Return the scale that a judge's scores are on."""
        declared = judge.model.config.score_range
        range_ = None if declared is None else (float(declared[0]), float(declared[1]))
        return cls(range_, len(judge.reference) if judge.reference else 0)

    @property
    def digits(self) -> int:
        """Digits after the point: three figures of the range."""
        if self.range is None:
            return 3
        return max(0, 3 - math.ceil(math.log10(self.range[1] - self.range[0])))

    def shown(self, score: float) -> str:
        """Return a score as text."""
        return f"{score:.{self.digits}f}".replace("-", "−")

    def points(self, difference: float) -> str:
        """Return what a part of a picture adds to a score as text with its sign, one digit finer than scores."""
        return ("+" if difference >= 0 else "−") + f"{abs(difference):.{self.digits + 1}f}"

    def in_words(self) -> str:
        """Return what scores are measured on, and which way."""
        if self.range is None:
            return "on no declared range; higher is better"
        return f"on a scale of {self.range[0]:g} to {self.range[1]:g}; higher is better"

    def rank_in_words(self, percentile: float) -> str:
        """Return a percentile as a sentence."""
        of = f"of the {self.reference:,} reference pictures"
        if percentile >= 99.5:
            return f"Higher than more than 99 % {of}."
        if percentile < 0.5:
            return f"Higher than less than 1 % {of}."
        return f"Higher than {percentile:.0f} % {of}."


def complaints(messages: Iterable[str]) -> str:
    """Return a box that says what could not be used; nothing when all could."""
    lines = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f'<div class="sind-complaint" role="alert"><ul>{lines}</ul></div>' if lines else ""


def note(text: str) -> str:
    """Return a quiet line."""
    return f'<p class="sind-note">{escape(text)}</p>'


def score_panel(verdict: Verdict, scale: Scale) -> str:
    """Return the score of one picture, in figures, on its scale and in words, with its quality map."""
    if verdict.score is None:
        return complaints([str(verdict.error)])
    rank = "" if verdict.percentile is None else f"<p>{scale.rank_in_words(verdict.percentile)}</p>"
    return (
        f'<section class="sind-panel"><h3>{escape(verdict.name)}</h3>'
        f'<p class="sind-score"><strong>{scale.shown(verdict.score)}</strong> <span>{scale.in_words()}</span></p>'
        f"{_bar(verdict.score, scale)}{rank}"
        f'<div class="sind-pair">{_figure(verdict.picture, "The picture")}{_map_figure(verdict)}</div>'
        f"{_legend([verdict], scale)}</section>"
    )


def batch_panel(verdicts: Sequence[Verdict], scale: Scale) -> str:
    """Return a table of pictures, best first, with what could not be used above and a CSV file to take away."""
    scored = sorted((v for v in verdicts if v.score is not None), key=lambda v: -(v.score or 0))
    failed = [str(v.error) for v in verdicts if v.score is None]
    heading = f"{len(scored)} of {len(verdicts)} pictures scored" if failed else f"{len(scored)} pictures scored"
    ranked = '<th scope="col" class="sind-number">Higher than</th>' if scale.reference else ""
    rows = "".join(_row(place, verdict, scale) for place, verdict in enumerate(scored, start=1))
    table = (
        f'<table class="sind-table"><thead><tr><th scope="col" class="sind-number">#</th><th scope="col">Picture</th>'
        f'<th scope="col" class="sind-number">Score</th>{ranked}</tr></thead>{rows}</table>'
    )
    of = f" “Higher than” compares with {scale.reference:,} reference pictures." if scale.reference else ""
    return (
        f'<section class="sind-panel"><div class="sind-head"><h3>{heading}</h3>{_csv_link(verdicts, scale)}</div>'
        + complaints(failed)
        + (note(f"Best first; scores are {scale.in_words()}.{of}") + table if scored else "")
        + "</section>"
    )


def comparison_panel(first: Verdict, second: Verdict, scale: Scale) -> str:
    """Return which of two pictures looks better and by how much; both maps are on one colour scale."""
    if first.score is None or second.score is None:
        return complaints(str(v.error) for v in (first, second) if v.score is None)
    difference = first.score - second.score
    if scale.shown(first.score) == scale.shown(second.score):
        headline, by = "Both look equally good", "to the digits shown"
    else:
        headline = f"{'A' if difference > 0 else 'B'} looks better"
        by = f"by {scale.shown(abs(difference))} points"
        if scale.range is not None:
            by += f", {_share(abs(difference) / (scale.range[1] - scale.range[0]))} of the scale"
    columns = ""
    limits = _limits([first, second])
    for letter, verdict, better in (("A", first, difference > 0), ("B", second, difference < 0)):
        rank = "" if verdict.percentile is None else f"<p>{scale.rank_in_words(verdict.percentile)}</p>"
        columns += (
            f'<div class="sind-side{" sind-better" if better and "equally" not in headline else ""}">'
            f"<h4>{letter}: {escape(verdict.name)}</h4>"
            f'<p class="sind-score"><strong>{scale.shown(verdict.score or 0)}</strong></p>'
            f"{_bar(verdict.score or 0, scale)}{rank}"
            f"{_figure(verdict.picture, f'Picture {letter}')}{_map_figure(verdict, limits)}</div>"
        )
    return (
        f'<section class="sind-panel"><h3 class="sind-verdict">{headline}, <span>{by}</span></h3>'
        f"{note(f'Scores are {scale.in_words()}.')}"
        f'<div class="sind-sides">{columns}</div>{_legend([first, second], scale)}</section>'
    )


def scores_csv(verdicts: Sequence[Verdict], *, percentiles: bool) -> str:
    """Return verdicts as a CSV table, in the order given, with the columns of `sind-hf score`."""
    file = io.StringIO()
    extra = ("percentile",) if percentiles else ()
    writer = csv.DictWriter(file, (*COLUMNS, *extra), lineterminator="\n")
    writer.writeheader()
    for verdict in verdicts:
        row = {"image": verdict.name, "score": verdict.score, "error": verdict.error}
        writer.writerow({**row, "percentile": verdict.percentile} if percentiles else row)
    return file.getvalue()


def _share(share: float) -> str:
    return "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _csv_link(verdicts: Sequence[Verdict], scale: Scale) -> str:
    # The byte order mark lets spreadsheets read names that are not ASCII; `--reference` reads it, too.
    text = "\ufeff" + scores_csv(verdicts, percentiles=bool(scale.reference))
    data = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return f'<a class="sind-button" download="scores.csv" href="data:text/csv;base64,{data}">Download CSV</a>'


def _row(place: int, verdict: Verdict, scale: Scale) -> str:
    rank = "" if verdict.percentile is None else f'<td class="sind-number">{verdict.percentile:.0f} %</td>'
    name = escape(verdict.name)
    picture = f'<img class="sind-thumb" src="{_data_uri(verdict.picture)}" alt=""/>' if verdict.picture else ""
    more = ""
    if verdict.quality_map is not None:  # in a row of its own, so that it has the width of the table
        details = f"<details><summary>Quality map</summary>{_map_figure(verdict)}{_legend([verdict], scale)}</details>"
        more = f'<tr><td></td><td class="sind-map" colspan="{3 if rank else 2}">{details}</td></tr>'
    return (
        f'<tbody><tr><td class="sind-number">{place}</td>'
        f'<td><div class="sind-name">{picture}<span>{name}</span></div></td>'
        f'<td class="sind-number"><strong>{scale.shown(verdict.score or 0)}</strong></td>{rank}</tr>{more}</tbody>'
    )


def _bar(score: float, scale: Scale) -> str:
    """Return a bar with a mark where the score lies; scores are not clipped, the mark is."""
    if scale.range is None:
        return ""
    low, high = scale.range
    place = min(max((score - low) / (high - low), 0), 1)
    beyond = (
        "" if low <= score <= high else '<p class="sind-note">Outside the scale: scores are not clipped to it.</p>'
    )
    return (
        f'<div class="sind-bar" role="img" aria-label="{scale.shown(score)}, {scale.in_words()}">'
        f'<div style="width:{100 * place:.1f}%"></div></div>'
        f'<div class="sind-ends"><span>{low:g} worst</span><span>{high:g} best</span></div>{beyond}'
    )


def _figure(image: Image.Image | None, caption: str) -> str:
    if image is None:
        return ""
    text = escape(caption)
    return f'<figure><img src="{_data_uri(image)}" alt="{text}"/><figcaption>{text}</figcaption></figure>'


def _map_figure(verdict: Verdict, limits: tuple[float, float] | None = None) -> str:
    if verdict.picture is None or verdict.quality_map is None:
        return ""
    tinted = overlay(verdict.picture, verdict.quality_map, limits or _limits([verdict]))
    return _figure(tinted, "Quality map")


def _limits(verdicts: Sequence[Verdict]) -> tuple[float, float] | None:
    """Return the ends of the colours: pale lies at the mean of a picture's parts, zero."""
    ends = [float(abs(v.quality_map).max()) for v in verdicts if v.quality_map is not None]
    return (-max(ends), max(ends)) if ends else None


def _legend(verdicts: Sequence[Verdict], scale: Scale) -> str:
    maps = [v.quality_map for v in verdicts if v.quality_map is not None]
    limits = _limits(verdicts)
    if limits is None:
        return note("This model makes no quality map: it reads no parts of the picture.")
    stops = ", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in COLOURS)
    worst, best = min(float(each.min()) for each in maps), max(float(each.max()) for each in maps)
    both = " Both maps share these colours." if len(maps) > 1 else ""
    return (
        '<div class="sind-legend">'
        f'<div class="sind-ends"><span>red: worse</span><span>pale: as the mean</span><span>blue: better</span></div>'
        f'<div class="sind-ramp" style="background:linear-gradient(to right, {stops})"></div>'
        f'<div class="sind-ends"><span>{scale.points(limits[0])}</span><span>0</span>'
        f"<span>{scale.points(limits[1])}</span></div>"
        "<p>Red parts pull the score down, blue parts push it up. Were the whole picture like the worst part, its "
        f"score would change by {scale.points(worst)}; like the best part, by {scale.points(best)}.{both} "
        "What the model sees in the picture as a whole is not in the map.</p></div>"
    )


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
