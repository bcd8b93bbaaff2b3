"""Which figures an experiment and an evaluation get."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sind_hf.data.manifests.manifest import Manifest, ManifestError
from sind_hf.data.statistics import plot_scene_distributions
from sind_hf.experiments.evaluation import Evaluation
from sind_hf.experiments.paper_results import published_result
from sind_hf.experiments.plots import fit_scatter, radar, require_matplotlib, scene_bars, training_curves
from sind_hf.experiments.records import read_scores
from sind_hf.experiments.report import summary_rows
from sind_hf.files import reason


def draw_figures(records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw an experiment: training curves of every fold, scenes of leave-one-out as bars, cross-set as a radar chart.

    Args:
        records: From `load_records`.
        folder: Where to; the figures are in its folder `figures`.

    Returns:
        The files written.

    Raises:
        ValueError: When matplotlib is not installed.
    """
    target = folder / "figures"
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for record in records:
        name = f"{record['fold']}, seed {record['seed']}"
        path = target / f"training_{_safe(record['fold'])}_{record['seed']}.png"
        training_curves(path, record["history"]["loss"], record["history"]["tests"], title=name)
        written.append(path)
    if records and records[0].get("protocol") == "leave-one-out":
        path = target / "scenes.png"
        scene_bars(path, _scenes(records), title=f"{records[0]['name']}: each scene, trained on the others")
        written.append(path)
    summary = [row for row in summary_rows(records) if row["metric"] == "srcc_plcc"]
    if records and records[0].get("protocol") == "cross-set" and len(summary) > 2:
        path = target / "radar.png"
        radar(path, _radar_models(records, summary), title=records[0]["name"])
        written.append(path)
    return written


def prepare_figures(folder: Path, datasets: Sequence[str]) -> None:
    """Look before a long evaluation whether its figures can be drawn.

    Args:
        folder: Where to; made if need be.
        datasets: Names of the data sets, after which the figures are named.

    Raises:
        ValueError: When matplotlib is not installed, the folder cannot be made, or two data sets have one name.
    """
    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot make this folder for figures ({reason(error)}).") from None
    names = [_safe(each) for each in datasets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{folder}: figures of two data sets would be named {twice[0]}; draw them in two folders.")


def draw_evaluation(evaluation: Evaluation, manifest: Manifest, folder: Path) -> list[Path]:
    """Draw an evaluation: scatter with the logistic fit, bars by scene, score distributions as rated and aligned.

    Args:
        evaluation: Of the manifest.
        manifest: Whose score distributions are drawn.
        folder: Where to; made if need be.

    Returns:
        The files written; bars and distributions where there is more than one scene.

    Raises:
        ValueError: When matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = _safe(evaluation.dataset)
    written = [folder / f"{name}_scatter.png"]
    label = manifest.score.name if manifest.score.higher_is_better else f"{manifest.score.name}, flipped"
    fit_scatter(
        written[0], evaluation.targets, evaluation.predictions, truth_label=label, title=f"{evaluation.dataset}"
    )
    if len(evaluation.report["by_scene"]) > 1:
        path = folder / f"{name}_scenes.png"
        scene_bars(path, evaluation.report["by_scene"], title=f"{evaluation.dataset}: within each scene")
        written.append(path)
        with suppress(ManifestError):  # no scene has two different scores
            written.append(plot_scene_distributions(manifest, folder / f"{name}_distributions.png"))
    return written


def draw_scores(folder: Path) -> list[Path]:
    """Draw opinion scores over predictions for every test set of a run, in `figures/` of its folder.

    Args:
        folder: Of a run, with its `scores_<set>.csv`; figures that are newer than their scores are used again.

    Returns:
        The files `figures/<set>_scatter.png`, those that were there before included; none where there are no scores.

    Raises:
        ValueError: When matplotlib is not installed, or scores cannot be read.
    """
    target = folder / "figures"
    for table in sorted(folder.glob("scores_*.csv")):
        name = table.stem.removeprefix("scores_")
        path = target / f"{_safe(name)}_scatter.png"
        if path.is_file() and path.stat().st_mtime >= table.stat().st_mtime:
            continue
        scores = read_scores(table)
        if len(scores.images) > 1:
            require_matplotlib()
            target.mkdir(exist_ok=True)
            fit_scatter(path, scores.targets, scores.predictions, title=name)
    return sorted(target.glob("*_scatter.png"))


def _scenes(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """SRCC, PLCC and number of pictures of each scene that was left out, averaged over the seeds."""
    collected: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        (dataset,) = record["metrics"]
        scene = re.sub(r"^test_for_\d+_?", "", record["fold"]) or record["fold"]
        values = record["metrics"][dataset]
        collected.setdefault(scene, []).append(
            {"srcc": values.get("srcc"), "plcc": values.get("plcc"), "n": record["test_images"][dataset]}
        )
    return {
        scene: {key: _average([values[key] for values in found]) for key in ("srcc", "plcc")} | {"n": found[0]["n"]}
        for scene, found in collected.items()
    }


def _average(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _radar_models(
    records: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    models: dict[str, dict[str, float | None]] = {"ours": {row["test"]: row["mean"] for row in summary}}
    theirs: dict[str, float | None] = {
        row["test"]: found.value
        for row in summary
        if (found := published_result("cross-set", records[0]["trained_on"], row["test"], "srcc_plcc"))
    }
    return models | ({"SIND, published": theirs} if theirs else {})


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)
