"""Agreement of predicted with subjective image quality, as a module of Hugging Face evaluate.

`sind_hf.metrics` computes the values; this file only adds the interface of evaluate. It loads without a network:

```python
from importlib.resources import files
import evaluate

metric = evaluate.load(str(files("sind_hf") / "evaluate_modules" / "iqa_correlation"))
metric.compute(predictions=[52.1, 70.3, 31.0], references=[50.0, 75.0, 20.0])
metric.compute(predictions=scores, references=mos, scenes=["Animal", "Night scene", …])
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from sind_hf import metrics

_DESCRIPTION = """\
Correlation of predicted quality with opinion scores, higher better in both: SRCC, PLCC, KRCC, RMSE, and PLCC after the
logistic fits with four and five parameters; with scenes also the metrics within each scene and their means.
"""
_INPUTS = """\
Args:
    predictions: predicted scores, one number per image.
    references: opinion scores, as many, higher better; negate DMOS first.
    scenes: scene of each image (optional).
Returns:
    srcc, plcc, krcc, rmse, plcc_logistic4, plcc_logistic5, n; with scenes also by_scene and within_scene.
    `nan` if a correlation is not defined.
Examples:
    >>> metric.compute(predictions=[1.0, 2.0, 4.0], references=[10.0, 20.0, 30.0])["srcc"]
    1.0
"""
_CITATION = "SIND: scene-invariant distribution learning for no-reference image quality assessment, IEEE TCSVT, 2025."


class IqaCorrelation(evaluate.Metric):
    """SRCC, PLCC, KRCC, RMSE and the logistic PLCCs."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # float64: in float32 different scores become equal, and ties change ranks.
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], scenes: Sequence[str] | None = None
    ) -> dict[str, Any]:
        return metrics.report(predictions, references, scene=scenes)
