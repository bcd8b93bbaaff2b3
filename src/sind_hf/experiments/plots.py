"""The figures of runs and reports, as PNG files."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sind_hf.scoring.quality_maps import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MapPanel:
    """One picture of a sheet of quality maps: what it shows, its score, its (7, 7) map."""

    title: str
    image: Image.Image
    quality_map: npt.NDArray[np.floating]


def scene_scatter(
    path: str | os.PathLike[str],
    truth: Sequence[float],
    predictions: dict[str, Sequence[float]],
    scenes: Sequence[str],
    *,
    truth_label: str = "opinion score",
    title: str = "",
) -> None:
    """Plot predicted against true scores, one panel per model, one colour and regression line per scene.

    Args:
        path: PNG file to write.
        truth: Opinion scores, shape (n,).
        predictions: Scores of each model, by the title of its panel; shape (n,) each.
        scenes: Scene of each picture.
        truth_label: What the horizontal axis is.
        title: Above the panels.

    Raises:
        ValueError: When matplotlib is not installed.
    """
    figure, axes = _panels(len(predictions), width=5.2, height=4.9)
    names = sorted(set(scenes))
    colours = _scene_colours(len(names))
    labels = np.asarray(scenes)
    x = np.asarray(truth, np.float64)
    for axis, (name, scores) in zip(axes, predictions.items(), strict=True):
        y = np.asarray(scores, np.float64)
        for scene, colour in zip(names, colours, strict=True):
            chosen = labels == scene
            axis.scatter(x[chosen], y[chosen], s=14, alpha=0.65, color=colour, linewidths=0, label=scene)
            if chosen.sum() > 2 and np.ptp(x[chosen]) > 0:
                slope, shift = np.polyfit(x[chosen], y[chosen], 1)
                ends = np.array([x[chosen].min(), x[chosen].max()])
                axis.plot(ends, slope * ends + shift, color=colour, linewidth=1.6)
        axis.set_title(name, fontsize=11)
        axis.set_xlabel(truth_label)
    axes[0].set_ylabel("predicted score")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(names), 6), frameon=False, markerscale=2)
    _write(figure, path, title)


def quality_map_sheet(path: str | os.PathLike[str], panels: Sequence[MapPanel], *, title: str = "") -> None:
    """Plot pictures above their quality maps, all maps on one colour scale.

    Args:
        path: PNG file to write.
        panels: What to show, left to right.
        title: Above the pictures.

    Raises:
        ValueError: When matplotlib is not installed.
    """
    figure, axes = _panels(len(panels), width=3.4, height=6.9, rows=2)
    values = np.stack([panel.quality_map for panel in panels])
    image: Any = None
    for column, panel in enumerate(panels):
        top, bottom = axes[column], axes[len(panels) + column]
        top.imshow(panel.image)
        top.set_title(panel.title, fontsize=10)
        ratio = panel.image.height / panel.image.width
        image = bottom.imshow(panel.quality_map, cmap=_colour_map(), vmin=values.min(), vmax=values.max())
        bottom.set_aspect(ratio)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    bar = figure.colorbar(image, ax=axes[len(panels) :], orientation="horizontal", fraction=0.06, pad=0.03)
    bar.set_label("contribution of each fragment to the raw score (red lowers, blue raises)")
    _write(figure, path, title)


def require_matplotlib() -> None:
    """Say how to get matplotlib where it is missing; long work that ends in a figure asks first.

    Raises:
        ValueError: When it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError('Figures need matplotlib: pip install "sind-hf[eval]"')


def _panels(count: int, *, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    # A figure of its own, not pyplot's: no window system is asked for, and nothing global changes.
    figure = NewFigure(figsize=(width * count, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, count, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def _write(figure: Figure, path: str | os.PathLike[str], title: str) -> None:
    if title:
        figure.suptitle(title, fontsize=12)
    figure.savefig(path, format="png")


def _scene_colours(count: int) -> list[Any]:
    import matplotlib

    if count <= 10:
        return [matplotlib.colormaps["tab10"](index) for index in range(count)]
    return [matplotlib.colormaps["turbo"](value) for value in np.linspace(0.05, 0.95, count)]


def _colour_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("quality", COLOURS / 255)
