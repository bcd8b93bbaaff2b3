"""Where a score stands among the scores of other pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from sind_hf.data.importing.tables import read_table
from sind_hf.onnx.model import is_onnx

REFERENCE_FILE = "reference_scores.csv"
# Relative to scores above 1. The same picture in another batch, or on another device, differs in its last digits.
EQUAL = 1e-4


class ReferenceScores:
    """Scores that one model gave to many pictures.

    Args:
        scores: Finite numbers, at least one.

    Raises:
        ValueError: When there are none.
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

        Rows without a score, pictures that could not be read, are left out.

        Raises:
            ValueError: When the file cannot be read, has no column `score`, or a score is no number.
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
                raise ValueError(f"{path}: row {number}: the score {cell!r} is no number.")
            scores.append(score)
        if not scores:
            raise ValueError(f"{path}: holds no score, so nothing can be compared with it.")
        return cls(scores)

    @classmethod
    def of_checkpoint(cls, model: str) -> ReferenceScores | None:
        """Read `reference_scores.csv` beside the weights of a checkpoint; None where there is none.

        Args:
            model: Folder or Hub repository; an exported file has none beside it.

        Raises:
            ValueError: When the file is there and cannot be used.
        """
        if Path(model).is_dir():
            path = Path(model) / REFERENCE_FILE
            return cls.load(path) if path.is_file() else None
        if is_onnx(model):
            return None
        try:
            found = hf_hub_download(model, REFERENCE_FILE)
        except (HfHubHTTPError, OSError, ValueError):  # most repositories have none; offline none is known
            return None
        return cls.load(found)

    def percentile(self, score: float) -> float:
        """Return the share of the reference below a score, in percent; of equal ones half counts as below."""
        margin = EQUAL * max(1.0, abs(score))
        below = np.searchsorted(self._sorted, score - margin, "left")
        up_to = np.searchsorted(self._sorted, score + margin, "right")
        return float(50 * (below + up_to) / len(self._sorted))
