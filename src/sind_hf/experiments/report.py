"""Tables over the folds of an experiment: JSON, CSV, Markdown and LaTeX, and the figures beside them.

All numbers are from the last epoch. Intervals are 95 % bootstrap intervals: of the mean over the folds if there are
several, over the images if there is one. The paper's results (IEEE TCSVT 2025) are shown beside ours if protocol,
training sets and test set are the same. They are means over the scenes for leave-one-out, medians over ten splits for
random-split, and (SRCC + PLCC) / 2 with one training set each for cross-set.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sind_hf.experiments.bootstrap import bootstrap_mean
from sind_hf.files import atomic_file, write_json, write_text

METRICS = ("srcc", "plcc", "srcc_plcc", "krcc", "rmse", "plcc_logistic4", "plcc_logistic5")
# The tables for people show these; CSV and JSON have the others.
_TITLES = {"srcc": "SRCC", "plcc": "PLCC", "srcc_plcc": "(SRCC+PLCC)/2"}
Row = dict[str, Any]


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
_LEAVE_ONE_OUT = {"spaq": (0.861, 0.889), "koniq10k": (0.919, 0.935), "eva": (0.778, 0.792), "para": (0.902, 0.940)}

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


def fold_rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return one row per fold, seed and test set, with its metrics and their intervals over the images."""
    rows = []
    for record in records:
        for test, values in record["metrics"].items():
            row: Row = {
                "fold": record["fold"],
                "seed": record["seed"],
                "trained_on": "+".join(record["trained_on"]),
                "test": test,
                "n": record["test_images"][test],
            }
            values = dict(values) | {"srcc_plcc": _mean_of(values)}
            row |= {name: values.get(name) for name in METRICS}
            for name, bounds in record["tests"][test]["interval"].items():
                row |= {f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
            best = record["best_epoch_chosen_on_test_set"].get(test) or {}
            row |= {"best_epoch_chosen_on_test_set": best.get("epoch"), "srcc_at_best_epoch": best.get("srcc")}
            rows.append(row)
    return rows


def summary_rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return one row per test set and metric: mean, median, deviation and interval over the folds.

    Folds where a metric is not defined are left out; `folds` is the number of the others. `std` is the sample
    deviation (None for a single fold). `published` is the paper's figure, and `published_statistic` names the column
    to compare it with.
    """
    grouped: dict[tuple[str, str], list[tuple[Mapping[str, Any], Row]]] = {}
    for record in records:
        for row in fold_rows([record]):
            grouped.setdefault((row["trained_on"], row["test"]), []).append((record, row))
    rows = []
    for (trained_on, test), members in grouped.items():
        for metric in METRICS:
            found = [row for _, row in members if row[metric] is not None and np.isfinite(row[metric])]
            if not found:
                continue
            values = np.array([row[metric] for row in found])
            low, high = (found[0].get(f"{metric}_{end}") for end in ("low", "high"))
            if len(values) > 1:
                low, high = bootstrap_mean(values.tolist())
            record = members[0][0]
            paper = published_result(record.get("protocol"), record["trained_on"], test, metric)
            rows.append(
                {
                    "trained_on": trained_on,
                    "test": test,
                    "metric": metric,
                    "folds": len(values),
                    "mean": float(values.mean()),
                    "median": float(np.median(values)),
                    "std": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "low": low,
                    "high": high,
                    "published": None if paper is None else paper.value,
                    "published_statistic": None if paper is None else paper.statistic,
                }
            )
    return rows


def statistics_cells(row: Row) -> list[str]:
    """Return folds, mean, median, deviation and interval of a row of `summary_rows` as the cells of a table."""
    return [
        str(row["folds"]),
        f"{row['mean']:.3f}",
        f"{row['median']:.3f}",
        "" if row["std"] is None else f"{row['std']:.3f}",
        "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
    ]


def write_report(records: Sequence[Mapping[str, Any]], folder: str | os.PathLike[str]) -> list[Path]:
    """Write `report.json`, `report.csv` (folds), `report_summary.csv`, `report.md` and `report.tex`.

    Returns:
        The files written; none without records.
    """
    if not records:
        return []
    folder = Path(folder)
    folds, summary = fold_rows(records), summary_rows(records)
    about = {"name": records[0]["name"], "protocol": records[0].get("protocol")}
    write_json(folder / "report.json", about | {"summary": summary, "folds": folds})
    _write_csv(folder / "report.csv", folds)
    _write_csv(folder / "report_summary.csv", summary)
    write_text(folder / "report.md", markdown(records))
    write_text(folder / "report.tex", latex(records))
    return [folder / f"report{ending}" for ending in (".json", ".csv", "_summary.csv", ".md", ".tex")]


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables as Markdown."""
    first = records[0]
    title = f"# {first['name']}" + (f" ({first['protocol']})" if first.get("protocol") else "")
    over = ", of the mean over the folds and of a fold over its images" if len(records) > 1 else " over the images"
    parts = [
        title,
        f"Last epoch, averaged weights. Intervals: 95 % bootstrap{over}.",
        _markdown_table(*_summary_cells(records)),
        "## Folds",
        _markdown_table(*_fold_cells(records)),
        "The best epoch of a test set was chosen on that test set. It is not a result; it only shows how far the last "
        "epoch is from it.",
    ]
    return "\n\n".join(parts) + "\n"


def latex(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a LaTeX table that needs no LaTeX package."""
    head, body = _summary_cells(records)
    lines = [r"\begin{tabular}{" + "ll" + "r" * (len(head) - 2) + "}", r"\hline"]
    lines += [" & ".join(map(_escaped, head)) + r" \\", r"\hline"]
    lines += [" & ".join(map(_escaped, row)) + r" \\" for row in body]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _summary_cells(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["test set", "metric", "folds", "mean", "median", "std", "95 % interval", "published"]
    body = []
    for row in summary_rows(records):
        if row["metric"] not in _TITLES:
            continue
        paper = "" if row["published"] is None else f"{row['published']:.3f}"
        if paper and row["published_statistic"] != "value":
            paper += f" ({row['published_statistic']})"
        body.append([row["test"], _TITLES[row["metric"]], *statistics_cells(row), paper])
    return head, body


def _fold_cells(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    seeds = len({record["seed"] for record in records}) > 1
    head = ["fold", *(["seed"] if seeds else []), "test set", "images", "SRCC", "95 % interval", "PLCC", "KRCC"]
    head += ["RMSE", "best epoch", "its SRCC"]
    body = []
    for row in fold_rows(records):
        interval = "" if row["srcc_low"] is None else f"{row['srcc_low']:.3f} to {row['srcc_high']:.3f}"
        body.append(
            [
                row["fold"],
                *([str(row["seed"])] if seeds else []),
                row["test"],
                str(row["n"]),
                _number(row["srcc"]),
                interval,
                *(_number(row[name]) for name in ("plcc", "krcc", "rmse", "best_epoch_chosen_on_test_set")),
                _number(row["srcc_at_best_epoch"]),
            ]
        )
    return head, body


def _mean_of(values: Mapping[str, Any]) -> float | None:
    pair = [values.get("srcc"), values.get("plcc")]
    return None if None in pair else sum(pair) / 2  # type: ignore[arg-type]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)


def _escaped(text: str) -> str:
    for plain, written in (("\\", r"\textbackslash "), ("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#")):
        text = text.replace(plain, written)
    return text


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
