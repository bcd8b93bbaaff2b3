"""The checkpoint that is part of the package: small, and usable without a download."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a checkpoint of the package.

    Attributes:
        name: Name to load it by, with `sind_hf.load(name)` or `sind-hf score --model NAME`.
        score_range: Lowest and highest score of its scale; higher is better.
        size: Bytes of its weights.
        license: Licenses of the head and of the backbone.
        results: SRCC by held-out set; `docs/explanation/results.md` says how it was measured.
    """

    name: str
    score_range: tuple[float, float]
    size: int
    license: str
    results: dict[str, float]


def list_checkpoints() -> list[CheckpointInfo]:
    """List the checkpoints inside the package.

    Example:
        >>> import sind_hf
        >>> [(info.name, info.score_range) for info in sind_hf.list_checkpoints()]
        [('bundled', (1.0, 5.0))]
    """
    config, facts = (
        json.loads((_FOLDER / name).read_text(encoding="utf-8")) for name in ("config.json", "results.json")
    )
    low, high = config["score_range"]
    size = (_FOLDER / "model.safetensors").stat().st_size
    return [CheckpointInfo("bundled", (low, high), size, facts["license"], facts["srcc"])]


def bundled_checkpoint() -> str:
    """Return the folder of the bundled checkpoint, for `SindModel.from_pretrained` and the like.

    Its `README.md` says how it was trained, what it can do and what it cannot.

    Example:
        >>> from sind_hf import SindModel, bundled_checkpoint
        >>> SindModel.from_pretrained(bundled_checkpoint()).config.score_range
        [1.0, 5.0]
    """
    return str(_FOLDER)


@cache
def reference_scores() -> tuple[float, ...]:
    """Return the scores of the bundled checkpoint for some hundred varied images, lowest first.

    The images are clean, distorted and authentic photographs, AI-generated images and video frames; only their scores
    are in the package. `README.md` in the folder of the checkpoint lists them.
    """
    document = json.loads((_FOLDER / "reference_scores.json").read_text(encoding="utf-8"))
    return tuple(sorted(score for scores in document["scores"].values() for score in scores))


def percentile(score: float) -> float:
    """Return the share of the reference images that score lower than an image, between 0 and 100; ties count half.

    Args:
        score: Score of the image by the bundled checkpoint. Scores of other checkpoints cannot be compared.

    Raises:
        ValueError: If the score is NaN.

    Example:
        >>> from sind_hf.bundled import percentile
        >>> percentile(0.0) < percentile(3.0) < percentile(5.0)
        True
    """
    if score != score:
        raise ValueError("the score is NaN, so it cannot be compared with the reference scores")
    scores = reference_scores()
    return 50 * (bisect_left(scores, score) + bisect_right(scores, score)) / len(scores)
