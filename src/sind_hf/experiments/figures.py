"""The figures of experiments, evaluations and model cards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sind_hf.data.manifests.manifest import Manifest, ManifestError
from sind_hf.experiments.evaluation import Evaluation
from sind_hf.experiments.plots import (
    fit_scatter,
    plot_scene_distributions,
    radar,
    require_matplotlib,
    scene_bars,
    training_curves,
)
from sind_hf.experiments.records import read_scores
from sind_hf.experiments.report import published_result, summary_rows
from sind_hf.files import reason


def draw_figures(records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw an experiment: training curves of every fold, scenes of leave-one-out as bars, cross-set as a radar chart.

    Args:
        records: Records from `load_records`.
        folder: Folder of the experiment; the figures go into its folder `figures`.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    target = folder / "figures"
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for record in records:
        name = f"{record['fold']}, seed {record['seed']}"
        path = target / f"training_{_safe(record['fold'])}_{record['seed']}.png"
        training_curves(path, record["history"]["loss"], record["history"]["tests"], title=name)
        written.append(path)
    protocol = records[0].get("protocol") if records else None
    if protocol == "leave-one-out":
        path = target / "scenes.png"
        scene_bars(path, _scenes(records), title=f"{records[0]['name']}: each scene, trained on the others")
        written.append(path)
    summary = [row for row in summary_rows(records) if row["metric"] == "srcc_plcc"]
    if protocol == "cross-set" and len(summary) > 2:
        path = target / "radar.png"
        radar(path, _radar_models(records, summary), title=records[0]["name"])
        written.append(path)
    return written


def prepare_figures(folder: Path, datasets: Sequence[str]) -> None:
    """Check before a long evaluation that its figures, which are named after the datasets, can be drawn.

    Raises:
        ValueError: If matplotlib is not installed, the folder cannot be created, or two datasets share a name.
    """
    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot create this folder for figures ({reason(error)}).") from None
    names = [_safe(each) for each in datasets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{folder}: figures of two datasets would be named {twice[0]}; draw them into two folders.")


def draw_evaluation(evaluation: Evaluation, manifest: Manifest, folder: Path) -> list[Path]:
    """Draw an evaluation: scatter with the logistic fit, bars by scene, score distributions as rated and aligned.

    Returns:
        The files written; bars and distributions only if there is more than one scene.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = _safe(evaluation.dataset)
    written = [folder / f"{name}_scatter.png"]
    label = manifest.score.name if manifest.score.higher_is_better else f"{manifest.score.name}, flipped"
    fit_scatter(written[0], evaluation.targets, evaluation.predictions, truth_label=label, title=evaluation.dataset)
    if len(evaluation.report["by_scene"]) > 1:
        path = folder / f"{name}_scenes.png"
        scene_bars(path, evaluation.report["by_scene"], title=f"{evaluation.dataset}: within each scene")
        written.append(path)
        with suppress(ManifestError):  # no scene has two different scores
            written.append(plot_scene_distributions(manifest, folder / f"{name}_distributions.png"))
    return written


def draw_scores(run: Path, folder: Path) -> list[Path]:
    """Draw opinion scores over predictions for every `scores_<set>.csv` of a run folder.

    Returns:
        The files `<set>_scatter.png`; none for test sets with fewer than two images.

    Raises:
        ValueError: If matplotlib is not installed, or scores cannot be read.
    """
    written = []
    for table in sorted(run.glob("scores_*.csv")):
        name = table.stem.removeprefix("scores_")
        scores = read_scores(table)
        if len(scores.images) > 1:
            require_matplotlib()
            written.append(folder / f"{_safe(name)}_scatter.png")
            fit_scatter(written[-1], scores.targets, scores.predictions, title=name)
    return written


def _scenes(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return SRCC, PLCC and number of images of each scene that was left out, averaged over the seeds."""
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
    published: dict[str, float | None] = {
        row["test"]: found.value
        for row in summary
        if (found := published_result("cross-set", records[0]["trained_on"], row["test"], "srcc_plcc"))
    }
    return models | ({"SIND, published": published} if published else {})


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)
