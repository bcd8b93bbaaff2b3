"""The figures of runs, reports and manifests, as PNG files; every function needs matplotlib.

Functions that draw raise a `ValueError` when matplotlib is not installed. Their first argument is the PNG file to
write, and `title` the line above the panels.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sind_hf import metrics
from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.manifest import Manifest, ManifestError
from sind_hf.data.statistics import aligned, density, lower_median, mean_overlap, scores_by_scene
from sind_hf.files import atomic_file, counted
from sind_hf.scoring.quality_maps import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HIGHEST_RIDGE = 1.9  # rows of a scene's density


@dataclass(frozen=True)
class MapPanel:
    """One column of a sheet of quality maps: a title, an image and its (7, 7) map."""

    title: str
    image: Image.Image
    quality_map: NDArray[np.floating]


def scene_scatter(
    path: str | os.PathLike[str],
    truth: Sequence[float],
    predictions: Mapping[str, Sequence[float]],
    scenes: Sequence[str],
    *,
    truth_label: str = "opinion score",
    title: str = "",
) -> None:
    """Plot predicted against true scores, with one panel per model, and one color and regression line per scene.

    Args:
        truth: Opinion scores, shape (n,).
        predictions: Scores by each model, by the title of its panel; shape (n,) each.
        scenes: Scene of each image.
    """
    figure, axes = _panels(len(predictions), width=5.2, height=4.9)
    names = sorted(set(scenes))
    colors = _scene_colors(len(names))
    labels = np.asarray(scenes)
    x = np.asarray(truth, np.float64)
    for axis, (name, scores) in zip(axes, predictions.items(), strict=True):
        y = np.asarray(scores, np.float64)
        for scene, color in zip(names, colors, strict=True):
            chosen = labels == scene
            axis.scatter(x[chosen], y[chosen], s=14, alpha=0.65, color=color, linewidths=0, label=scene)
            if chosen.sum() > 2 and np.ptp(x[chosen]) > 0:
                slope, shift = np.polyfit(x[chosen], y[chosen], 1)
                ends = np.array([x[chosen].min(), x[chosen].max()])
                axis.plot(ends, slope * ends + shift, color=color, linewidth=1.6)
        axis.set_title(name, fontsize=11)
        axis.set_xlabel(truth_label)
    axes[0].set_ylabel("predicted score")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(names), 6), frameon=False, markerscale=2)
    _write(figure, path, title)


def quality_map_sheet(path: str | os.PathLike[str], panels: Sequence[MapPanel], *, title: str = "") -> None:
    """Plot images above their quality maps, all maps on one color scale."""
    figure, axes = _panels(len(panels), width=3.4, height=6.9, rows=2)
    values = np.stack([panel.quality_map for panel in panels])
    image: Any = None
    for column, panel in enumerate(panels):
        top, bottom = axes[column], axes[len(panels) + column]
        top.imshow(panel.image)
        top.set_title(panel.title, fontsize=10)
        ratio = panel.image.height / panel.image.width
        image = bottom.imshow(panel.quality_map, cmap=_color_map(), vmin=values.min(), vmax=values.max())
        bottom.set_aspect(ratio)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    bar = figure.colorbar(image, ax=axes[len(panels) :], orientation="horizontal", fraction=0.06, pad=0.03)
    bar.set_label("contribution of each fragment to the raw score (red lowers, blue raises)")
    _write(figure, path, title)


def require_matplotlib() -> None:
    """Check that matplotlib is installed; long work that ends in a figure calls this first.

    Raises:
        ValueError: If matplotlib is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError('Figures need matplotlib: pip install "sind-hf[eval]"')


def fit_scatter(
    path: str | os.PathLike[str],
    truth: Sequence[float],
    prediction: Sequence[float],
    *,
    truth_label: str = "opinion score",
    title: str = "",
) -> None:
    """Plot opinion scores over predictions, with the curve of `drawable_fit` that PLCC is computed after.

    Args:
        truth: Opinion scores, shape (n,).
        prediction: Predicted scores, shape (n,).
    """
    figure, (axis,) = _panels(1, width=5.6, height=5.0)
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    axis.scatter(x, y, s=12, alpha=float(np.clip(300 / len(x), 0.15, 0.6)), color="tab:blue", linewidths=0)
    fit, label = drawable_fit(x, y)
    grid = np.linspace(x.min(), x.max(), 300)
    axis.plot(grid, fit(grid), color="tab:red", linewidth=2, label=label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.ConstantInputWarning)
        values = {
            "SRCC": metrics.srcc(x, y),
            "PLCC": metrics.plcc(x, y),
            "PLCC after the fit": metrics.plcc(fit(x), y),
        }
    text = "\n".join(f"{name} {value:.3f}" for name, value in values.items())
    axis.text(0.03, 0.97, f"{text}\n{counted(len(x), 'image')}", transform=axis.transAxes, va="top", fontsize=9)
    axis.set_xlabel("predicted score")
    axis.set_ylabel(truth_label)
    axis.legend(loc="lower right", frameon=False, fontsize=9)
    _write(figure, path, title)


def drawable_fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[metrics.LogisticFit, str]:
    """Return the curve that a figure shows, and its name.

    A sigmoid whose rise lies between two neighboring predictions would be drawn as a vertical step that no image
    supports: then the curve with fewer parameters is taken.

    Args:
        x: Predicted scores, shape (n,).
        y: Opinion scores, shape (n,).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.FitWarning)  # the name of the curve says so
        for parameters, name in ((5, "five-parameter logistic"), (4, "four-parameter logistic")):
            fit = metrics.fit_logistic(x, y, parameters)  # type: ignore[arg-type]
            if fit.converged and not _is_step(fit, x):
                return fit, name
    slope, shift = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, float(y.mean()))
    line = metrics.LogisticFit((float(slope), float(shift)), False, "no logistic without a step")
    return line, "straight line (no logistic fits)"


def _is_step(fit: metrics.LogisticFit, x: NDArray[np.float64]) -> bool:
    """Whether the sigmoid rises from 10 % to 90 % over fewer than three different predictions."""
    place = fit.parameters[2]
    width = fit.parameters[3] if len(fit.parameters) == 4 else 1 / fit.parameters[1]
    rise = np.log(9) * width
    inside = np.unique(x[np.abs(x - place) <= rise])
    return len(inside) < 3 and rise < 0.1 * np.ptp(x)


def scene_bars(
    path: str | os.PathLike[str], scenes: Mapping[str, Mapping[str, float | None]], *, title: str = ""
) -> None:
    """Plot SRCC and PLCC of every scene as bars, with their means as lines.

    Args:
        scenes: `srcc`, `plcc` and `n` by scene. A correlation that is None or not finite is shown as "not defined".
    """
    names = sorted(scenes, key=lambda name: _number(scenes[name].get("srcc"), -2.0))
    figure, (axis,) = _panels(1, width=7.5, height=1.6 + 0.42 * max(len(names), 2))
    rows = np.arange(len(names))
    for shift, metric, color in ((0.2, "srcc", "tab:blue"), (-0.2, "plcc", "tab:orange")):
        values = np.array([_number(scenes[name].get(metric), np.nan) for name in names])
        bars = axis.barh(rows + shift, np.nan_to_num(values), height=0.38, color=color, label=metric.upper())
        texts = [f"{value:.3f}" if np.isfinite(value) else "not defined" for value in values]
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # hides the dashed lines behind the text
        axis.bar_label(bars, labels=texts, padding=3, fontsize=8, bbox=plate)
        if np.isfinite(values).any():
            axis.axvline(float(np.nanmean(values)), color=color, linewidth=1.2, linestyle="--", zorder=0)
    counts = [f"  ({count:,})" if (count := scenes[name].get("n")) is not None else "" for name in names]
    axis.set_yticks(rows, [f"{name}{count}" for name, count in zip(names, counts, strict=True)])
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(min(0.0, axis.get_xlim()[0]), 1.12)
    axis.set_xlabel("correlation (dashed: mean over the scenes)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _write(figure, path, title)


def radar(path: str | os.PathLike[str], models: Mapping[str, Mapping[str, float | None]], *, title: str = "") -> None:
    """Plot the results of models on several test sets as polygons around one center.

    Args:
        models: Values by test set, for each model. The first model names the axes; others may lack some of them.

    Raises:
        ValueError: If there are fewer than three test sets.
    """
    sets = list(next(iter(models.values())))
    if len(sets) < 3:
        raise ValueError(f"A radar chart needs at least three test sets, got {len(sets)}.")
    figure = _figure(6.2, 6.4)
    axis: Any = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(sets), endpoint=False)
    everything = [_number(values.get(name), np.nan) for values in models.values() for name in sets]
    lowest = float(np.floor(np.nanmin(everything) * 10 - 0.5) / 10)
    for number, (model, values) in enumerate(models.items()):
        heights = np.array([_number(values.get(name), np.nan) for name in sets])
        style = {"color": f"C{number}", "linewidth": 2, "label": model}
        axis.plot(np.append(angles, angles[0]), np.append(heights, heights[0]), marker="o", **style)
        if np.isfinite(heights).all():
            axis.fill(angles, heights, color=f"C{number}", alpha=0.12)
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_xticks(angles, sets)
    axis.tick_params(axis="x", pad=12)
    axis.set_ylim(lowest, 1.0)
    axis.set_rlabel_position(180 / len(sets))
    axis.tick_params(axis="y", labelsize=8, labelcolor="0.4")
    figure.legend(loc="outside lower center", ncols=min(len(models), 3), frameon=False, title="(SRCC + PLCC) / 2")
    _write(figure, path, title)


def training_curves(
    path: str | os.PathLike[str],
    loss: Sequence[Mapping[str, float]],
    tests: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    title: str = "",
) -> None:
    """Plot the training loss, and the SRCC on every test set, over the epochs.

    Args:
        loss: `epoch` and `loss` along the training.
        tests: `epoch` and `srcc` of every evaluation, by test set.
    """
    figure, (left, right) = _panels(2, width=5.2, height=4.2)
    left.plot([entry["epoch"] for entry in loss], [entry["loss"] for entry in loss], color="0.25", marker=".")
    left.set_ylabel("loss")
    for (name, entries), color in zip(tests.items(), _scene_colors(len(tests)), strict=True):
        values = [_number(entry.get("srcc"), np.nan) for entry in entries]
        right.plot([entry["epoch"] for entry in entries], values, color=color, marker=".", label=name)
    right.set_ylabel("SRCC")
    left.set_title("training", fontsize=11)
    right.set_title("test sets (the last epoch is the result)", fontsize=11)
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
    if tests:
        figure.legend(loc="outside lower center", ncols=min(len(tests), 5), frameon=False)
    _write(figure, path, title)


def plot_scene_distributions(manifest: Manifest, path: str | os.PathLike[str]) -> Path:
    """Draw the score distribution of every scene before and after alignment; return the path.

    Left: oriented scores (higher is better). Right: the scores of each scene minus their lower median, divided by
    their mean absolute deviation. Both panels state the mean overlap of the distributions of two scenes (1 if they
    are equal).

    Raises:
        ManifestError: If no scene has two different scores.
    """
    _, by_scene = scores_by_scene(manifest, manifest.oriented_scores())
    # A density needs scores that differ by more than rounding.
    scenes = {name: scores for name, scores in by_scene.items() if np.ptp(scores) > 1e-9 * np.abs(scores).max()}
    if not scenes:
        raise ManifestError(f"{manifest.dataset}: no scene has two different scores; there is no distribution to draw")
    order = sorted(scenes, key=lambda name: lower_median(scenes[name]))
    facts = CATALOG.get(manifest.dataset)
    title = facts.display_name if facts else manifest.dataset
    kinds = f"{facts.domain_kind if facts else 'scene'}s"
    row_height = 0.42 if len(order) <= 16 else 0.3
    figure = _figure(10.0, 1.7 + row_height * len(order), dpi=150)
    figure.set_layout_engine("constrained", wspace=0.05)
    left, right = figure.subplots(1, 2, sharey=True)
    count = f"{sum(map(len, scenes.values())):,} opinion scores"
    figure.suptitle(
        f"{title}: {count} of {len(order)} {kinds}" if len(order) > 1 else f"{title}: {count}", fontsize=13
    )
    for axes, heading, bounds in ((left, "as rated", manifest.oriented_range()), (right, "aligned", None)):
        values = {name: scenes[name] if axes is left else aligned(scenes[name]) for name in order}
        _draw_ridges(axes, values, bounds)
        axes.set_title(heading, loc="left", fontsize=11)
        if len(order) > 1:
            shared = f"mean overlap of two {kinds}: {mean_overlap(list(values.values())):.2f}"
            axes.set_title(shared, loc="right", fontsize=9, color="0.35")
        axes.tick_params(axis="y", length=0, pad=6)
    left.set_yticks(range(len(order)), [f"{name}  ({len(scenes[name]):,})" for name in order])
    left.set_xlabel(manifest.score.name if manifest.score.higher_is_better else f"{manifest.score.name}, flipped")
    right.set_xlabel("(score − median) / mean absolute deviation")
    _write(figure, path)
    return Path(path)


def _draw_ridges(axes: Axes, scenes: dict[str, NDArray[np.float64]], bounds: tuple[float, float] | None) -> None:
    """Draw one density per scene, the first at the bottom. The tallest one is `_HIGHEST_RIDGE` rows high."""
    import matplotlib

    everything = np.concatenate(list(scenes.values()))
    if bounds is None:
        bounds = (float(np.percentile(everything, 0.2)), float(np.percentile(everything, 99.8)))
    margin = 0.06 * (bounds[1] - bounds[0])
    grid = np.linspace(bounds[0] - margin, bounds[1] + margin, 400)
    densities = np.stack([density(scores, grid) for scores in scenes.values()])
    heights = _HIGHEST_RIDGE * densities / densities.max()
    colors = matplotlib.colormaps["viridis"](np.linspace(0.12, 0.82, len(scenes)))
    axes.axvline(lower_median(everything), color="0.75", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    for row, (scores, height) in enumerate(zip(scenes.values(), heights, strict=True)):
        # Lower rows are in front, so that the top of every ridge is visible.
        front = 2.0 + len(scenes) - row
        axes.fill_between(grid, row, row + height, color=colors[row], alpha=0.82, linewidth=0, zorder=front)
        axes.plot(grid, row + height, color="white", linewidth=1.1, zorder=front)
        median = lower_median(scores)
        axes.plot(
            [median] * 2, [row, row + np.interp(median, grid, height)], color="white", linewidth=1.4, zorder=front
        )
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(-0.15, len(scenes) - 1 + _HIGHEST_RIDGE + 0.15)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _panels(count: int, *, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = _figure(width * count, height)
    axes = figure.subplots(rows, count, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def _figure(width: float, height: float, dpi: int = 130) -> Figure:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    # Not a figure of pyplot, so that no window system is needed and nothing global changes.
    figure = NewFigure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, path: str | os.PathLike[str], title: str = "") -> None:
    if title:
        figure.suptitle(title, fontsize=12)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _scene_colors(count: int) -> list[Any]:
    import matplotlib

    if count <= 10:
        return [matplotlib.colormaps["tab10"](index) for index in range(count)]
    return [matplotlib.colormaps["turbo"](value) for value in np.linspace(0.05, 0.95, count)]


def _color_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("quality", COLORS / 255)


def _number(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not np.isfinite(value) else float(value)
