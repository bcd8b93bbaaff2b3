"""The published results of SIND and of the methods that it was compared with, to show beside ours.

Source: the paper's tables (IEEE TCSVT 2025). Leave-one-out: mean over the scenes; random-split: median over ten
splits; cross-set: (SRCC + PLCC) / 2, one training set each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PublishedResult:
    """A figure of the paper.

    Attributes:
        value: The figure.
        statistic: Statistic over the folds, named as in our summary: `mean`, `median`, or `value` for a single fold.
    """

    value: float
    statistic: str


# dataset -> SRCC, PLCC
_LEAVE_ONE_OUT = {
    "spaq": (0.861, 0.889),
    "koniq10k": (0.919, 0.935),
    "eva": (0.778, 0.792),
    "para": (0.902, 0.940),
}

_RANDOM_SPLIT_SETS = ("live", "csiq", "kadid10k", "bid", "livec", "koniq10k")
# method -> SRCC, PLCC for each of the sets above
_RANDOM_SPLIT = {
    "NIQE": ((0.908, 0.904), (0.631, 0.719), (0.389, 0.442), (0.573, 0.618), (0.446, 0.507), (0.415, 0.438)),
    "MUSIQ": ((0.837, 0.818), (0.697, 0.766), (0.572, 0.584), (0.744, 0.774), (0.785, 0.828), (0.915, 0.937)),
    "DBCNN": ((0.963, 0.966), (0.940, 0.954), (0.878, 0.878), (0.864, 0.883), (0.835, 0.854), (0.864, 0.868)),
    "HyperIQA": ((0.966, 0.968), (0.934, 0.946), (0.872, 0.869), (0.848, 0.868), (0.855, 0.878), (0.900, 0.915)),
    "UNIQUE": ((0.961, 0.952), (0.902, 0.921), (0.884, 0.885), (0.852, 0.875), (0.854, 0.884), (0.895, 0.900)),
    "LIQE": ((0.970, 0.951), (0.936, 0.939), (0.930, 0.931), (0.875, 0.900), (0.904, 0.910), (0.919, 0.908)),
    "SIND": ((0.970, 0.972), (0.942, 0.952), (0.948, 0.951), (0.901, 0.937), (0.918, 0.940), (0.944, 0.955)),
}

# training set -> test set -> (SRCC + PLCC) / 2
_CROSS_SET = {
    "koniq10k": {"spaq": 0.888, "livec": 0.887, "cid2013": 0.854, "bid": 0.877, "live": 0.915},
    "spaq": {"koniq10k": 0.850, "livec": 0.852, "cid2013": 0.798, "bid": 0.835, "live": 0.911},
}

Key = tuple[str, str, tuple[str, ...], str, str]  # protocol, method, training sets (sorted), test set, metric


def _gather() -> dict[Key, PublishedResult]:
    results: dict[Key, PublishedResult] = {}
    for name, pair in _LEAVE_ONE_OUT.items():
        for metric, value in zip(("srcc", "plcc"), pair, strict=True):
            results["leave-one-out", "SIND", (name,), name, metric] = PublishedResult(value, "mean")
    joint = tuple(sorted(_RANDOM_SPLIT_SETS))  # SIND was trained on all six jointly
    for method, pairs in _RANDOM_SPLIT.items():
        for name, pair in zip(_RANDOM_SPLIT_SETS, pairs, strict=True):
            for metric, value in zip(("srcc", "plcc"), pair, strict=True):
                results["random-split", method, joint, name, metric] = PublishedResult(value, "median")
    for source, targets in _CROSS_SET.items():
        for name, value in targets.items():
            results["cross-set", "SIND", (source,), name, "srcc_plcc"] = PublishedResult(value, "value")
    return results


_RESULTS = MappingProxyType(_gather())

METHODS = MappingProxyType({"random-split": tuple(_RANDOM_SPLIT), "leave-one-out": ("SIND",), "cross-set": ("SIND",)})


def published_result(
    protocol: str | None, trained_on: Sequence[str], test: str, metric: str, method: str = "SIND"
) -> PublishedResult | None:
    """Return the published figure for the same protocol, training sets and test set; None if there is none.

    Args:
        protocol: `leave-one-out`, `cross-set` or `random-split`.
        trained_on: Training sets, in any order.
        test: Test set.
        metric: `srcc`, `plcc`, or `srcc_plcc` for their mean.
        method: One of `METHODS[protocol]`.
    """
    return _RESULTS.get((protocol or "", method, tuple(sorted(set(trained_on))), test, metric))
