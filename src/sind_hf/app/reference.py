"""Scores of many images, which a score is compared with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from sind_hf.data.importing.tables import read_table
from sind_hf.files import read_text
from sind_hf.onnx.model import is_onnx

REFERENCE_FILE = "reference_scores.csv"
REFERENCE_DOCUMENT = "reference_scores.json"
# Relative to scores above 1. The score of an image differs in its last digits between batches and devices.
EQUAL = 1e-4


class ReferenceScores:
    """Scores that one model gave to many images: finite numbers.

    Raises:
        ValueError: When there are no scores.
    """

    def __init__(self, scores: Sequence[float]) -> None:
        if not len(scores):
            raise ValueError("A reference needs at least one score.")
        self._sorted = np.sort(np.asarray(scores, np.float64))

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def scores(self) -> list[float]:
        """The scores, in ascending order."""
        return self._sorted.tolist()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ReferenceScores:
        """Read the column `score` of a table as `sind-hf score` writes it: CSV, JSON Lines or Parquet.

        Rows without a score, whose images could not be read, are left out.

        Raises:
            ValueError: When the file cannot be read, has no column `score`, or holds a score that is not a number.
        """
        table = read_table(Path(path))
        if "score" not in table.columns:
            raise ValueError(
                f"{path}: has no column 'score' (it has {', '.join(map(str, table.columns))}); "
                "give a file that `sind-hf score --output` wrote."
            )
        scores = []
        for number, row in table.rows:
            if isinstance(row, str):
                raise ValueError(f"{path}: row {number}: {row}.")
            cell = row.get("score")
            if cell is None or cell == "":
                continue
            try:
                score = float(str(cell))
            except ValueError:
                score = math.nan
            if not math.isfinite(score):
                raise ValueError(f"{path}: row {number}: the score {cell!r} is not a number.")
            scores.append(score)
        if not scores:
            raise ValueError(f"{path}: holds no scores; give a file with at least one.")
        return cls(scores)

    @classmethod
    def of_checkpoint(cls, model: str, views: str) -> ReferenceScores | None:
        """Read the reference scores beside the weights of a checkpoint; None when it has none for these views.

        `reference_scores.csv` is a table as `load` reads it. The bundled checkpoint has `reference_scores.json`, which
        also says which views its scores were computed with.

        Args:
            model: Folder or Hub repository; an exported file has no scores beside it.
            views: `"center"` or `"nine"`.

        Raises:
            ValueError: When a file exists and cannot be used.
        """
        if Path(model).is_dir():
            table, document = Path(model) / REFERENCE_FILE, Path(model) / REFERENCE_DOCUMENT
            if table.is_file():
                return cls.load(table)
            return cls._of_document(document, views) if document.is_file() else None
        if is_onnx(model):
            return None
        try:
            found = hf_hub_download(model, REFERENCE_FILE)
        except (HfHubHTTPError, OSError, ValueError):  # most repositories have none; offline none is known
            return None
        return cls.load(found)

    @classmethod
    def _of_document(cls, path: Path, views: str) -> ReferenceScores | None:
        try:
            document = json.loads(read_text(path))
            scores = [float(score) for scores in document["scores"].values() for score in scores]
            if not all(map(math.isfinite, scores)):
                raise ValueError("a score is not finite")
            return cls(scores) if document["views"] == views else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a file of reference scores ({error}); delete it or replace it.") from error

    def percentile(self, score: float) -> float:
        """Return the share of the reference below a score, in percent; of equal scores half counts as below."""
        margin = EQUAL * max(1.0, abs(score))
        below = np.searchsorted(self._sorted, score - margin, "left")
        up_to = np.searchsorted(self._sorted, score + margin, "right")
        return float(50 * (below + up_to) / len(self._sorted))

    def quantile(self, share: float) -> float:
        """Return the score below which a share of the reference, between 0 and 1, lies."""
        return float(np.quantile(self._sorted, share))
