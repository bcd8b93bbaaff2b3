"""What both pages say about a model and its scores, and the facts that `panels.js` draws results with."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_plus

from PIL import Image

from sind_hf.app.judge import Judge, Verdict
from sind_hf.configuration_sind import resolve_checkpoint
from sind_hf.onnx.model import is_onnx
from sind_hf.scoring.quality_maps import COLORS

WORDS = ("poor", "fair", "good", "excellent")
FEWEST_FOR_WORDS = 20  # reference scores; the quarters of fewer say little
CODE = "https://github.com/ZachL1/SIND"
PAPER = "https://ieeexplore.ieee.org/search/searchresult.jsp?queryText=" + quote_plus(
    "Scene-Invariant Distribution Learning for Generalizable Image Quality Assessment"
)


@dataclass(frozen=True)
class Scale:
    """Scale of the scores of one model."""

    range: tuple[float, float] | None  # lowest and highest score of the training data's scale, if it is declared
    limits: tuple[float, ...] = ()  # the three scores at which the words `WORDS` change; empty without words
    reference_size: int = 0  # number of reference images

    @classmethod
    def of(cls, judge: Judge) -> Scale:
        """Return the scale of a judge's scores.

        The words are the quarters of the reference scores; without a reference they are the quarters of the range.
        """
        declared, reference = judge.model.config.score_range, judge.reference
        range_ = None if declared is None else (float(declared[0]), float(declared[1]))
        size = 0 if reference is None else len(reference)
        limits: tuple[float, ...] = ()
        if reference is not None and size >= FEWEST_FOR_WORDS:
            limits = tuple(reference.quantile(quarter / 4) for quarter in (1, 2, 3))
        elif range_ is not None:
            limits = tuple(range_[0] + quarter / 4 * (range_[1] - range_[0]) for quarter in (1, 2, 3))
        return cls(range_, limits, size)

    @property
    def digits(self) -> int:
        """Digits after the decimal point, so that the range has three figures."""
        if self.range is None:
            return 3
        return max(0, 3 - math.ceil(math.log10(self.range[1] - self.range[0])))

    def shown(self, score: float) -> str:
        """Return a score as text."""
        return f"{score:.{self.digits}f}".replace("-", "−")

    def word(self, score: float) -> str | None:
        """Return the word for a score; None when there are no words."""
        return WORDS[sum(score >= limit for limit in self.limits)] if self.limits else None

    def in_words(self) -> str:
        """Return the range of the scores and their direction."""
        if self.range is None:
            return "on no declared range; higher is better"
        return f"on a scale of {self.range[0]:g} to {self.range[1]:g}; higher is better"

    def words_explained(self) -> str | None:
        """Return what the words stand for; None when there are no words."""
        if not self.limits:
            return None
        if self.reference_size >= FEWEST_FOR_WORDS:
            quarters = f"the four quarters of the scores of {self.reference_size:,} reference images"
        else:
            quarters = "the four quarters of the scale"
        return f"Poor, fair, good and excellent are {quarters}."


def page_facts(judge: Judge) -> dict[str, Any]:
    """Return what `panels.js` must know about a model's scores, as JSON values."""
    scale = Scale.of(judge)
    bands = [{"word": word, "least": least} for word, least in zip(WORDS, (None, *scale.limits), strict=False)]
    return {
        "score_range": None if scale.range is None else list(scale.range),
        "digits": scale.digits,
        "bands": bands if scale.limits else [],
        "reference_size": scale.reference_size,
        "map_colors": COLORS.astype(int).tolist(),
    }


def caption(judge: Judge) -> str:
    """Return what scores the images and what it judges, in two sentences."""
    who = "the small model that comes with sind-hf" if judge.bundled else f"the SIND model “{judge.name}”"
    if judge.bundled:
        judges = "It judges sharpness, noise and compression, not taste."
    else:
        judges = "It judges what the people judged whose opinions it was trained on."
    return f"Scores by {who}, {Scale.of(judge).in_words()}. {judges}"


def card_address(model: str | Judge, card: str | None) -> str | None:
    """Return the address of a model card: the page of a Hub repository, unless `card` is another address.

    Raises:
        ValueError: When `card` is not a web address.
    """
    if card is None and isinstance(model, str):
        path = str(resolve_checkpoint(model))
        return None if Path(path).exists() or is_onnx(path) else f"https://huggingface.co/{path}"
    if card is not None and not card.startswith(("https://", "http://")):
        raise ValueError(f"the card {card!r} is not a web address: begin it with https://")
    return card


def links(card: str | None = None) -> str:
    """Return the links below the caption, as HTML; `card` is the address of the model card."""
    addresses = {"Model card": card, "Paper": PAPER, "Code of the paper": CODE}
    shown = [
        f'<a href="{escape(address)}" target="_blank" rel="noopener">{name}</a>'
        for name, address in addresses.items()
        if address is not None
    ]
    return " · ".join([*shown, '<a href="#limits">Limits</a>'])


def limits(judge: Judge) -> str:
    """Return what a score does not say, as HTML that opens on a click."""
    size = int(judge.model.config.view_size or 224)
    views = "nine pairs of views" if judge.views == "nine" else "one pair of views"
    lines = [
        f"The model looks at {views} of {size} × {size} pixels. They are cut from the image after its short side was "
        f"reduced to {3 * size} pixels, so finer detail does not count.",
        "Images of the same quality but different content may get different scores. Comparisons of one subject are "
        "the surest.",
        "Scores are not clipped: a few images score beyond the ends of the scale.",
        Scale.of(judge).words_explained(),
        "A quality map shows which parts of the image raise or lower its score. What the model sees in the image as a "
        "whole is not in the map.",
    ]
    if judge.bundled:
        lines.insert(0, "Whether an image is interesting, beautiful or well composed is not in its score.")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines if line is not None)
    return f'<details class="limits"><summary>Limits of the score</summary><ul id="limits">{items}</ul></details>'


def complaints(messages: Iterable[str]) -> str:
    """Return a box with one line per message; an empty string without messages."""
    lines = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f'<div class="sind-complaint" role="alert"><ul>{lines}</ul></div>' if lines else ""


def note(text: str) -> str:
    """Return a quiet line."""
    return f'<p class="sind-note">{escape(text)}</p>'


def results(kind: Literal["score", "batch", "compare"], verdicts: Sequence[Verdict], scale: Scale) -> str:
    """Return verdicts as HTML that `page.js` replaces by a panel; a client without scripts reads plain lines.

    The panel shows one image, a table of several, or a comparison of two. The images are part of the HTML, so that no
    image of a visitor is kept on the server.
    """
    data = json.dumps([_result(verdict) for verdict in verdicts], allow_nan=False)
    lines = "".join(f"<p>{escape(_line(verdict, scale))}</p>" for verdict in verdicts)
    return f'<div class="sind-results" data-kind="{kind}" data-results="{escape(data)}">{lines}</div>'


def _result(verdict: Verdict) -> dict[str, Any]:
    if verdict.score is None:
        return {"name": verdict.name, "error": verdict.error}
    grid = verdict.quality_map
    return {
        "name": verdict.name,
        "score": verdict.score,
        "percentile": verdict.percentile,
        "map": None if grid is None else [round(float(value), 6) for value in grid.ravel()],
        "preview": None if verdict.image is None else _data_uri(verdict.image),
    }


def _line(verdict: Verdict, scale: Scale) -> str:
    if verdict.score is None:
        return str(verdict.error)
    word = scale.word(verdict.score)
    return f"{verdict.name}: {scale.shown(verdict.score)}{'' if word is None else f' ({word})'}"


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
