from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_sets import make_set
from sind_hf import metrics
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo
from sind_hf.experiments import figures, plots
from sind_hf.experiments.evaluation import Evaluation
from sind_hf.experiments.figures import draw_evaluation, draw_figures, draw_scores
from sind_hf.experiments.plots import fit_scatter, radar, scene_bars, training_curves

pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "sind-hf[eval]"')
CURVES = {
    "loss": [{"epoch": epoch, "loss": 1 / epoch, "learning_rate": 1e-5} for epoch in range(1, 6)],
    "tests": {"livec": [{"epoch": epoch, "srcc": 0.5 + 0.05 * epoch, "plcc": 0.5} for epoch in range(1, 6)]},
}


def ink(path: Path) -> float:
    """Share of the figure that is not white."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 200
    return float((pixels < 250).mean())


def record(fold, tests, protocol):
    return {
        "name": "run",
        "protocol": protocol,
        "fold": fold,
        "seed": 0,
        "trained_on": ["spaq"],
        "test_images": dict.fromkeys(tests, 40),
        "metrics": {name: {"srcc": value, "plcc": value} for name, value in tests.items()},
        "tests": {name: {"interval": {}} for name in tests},
        "best_epoch_chosen_on_test_set": {},
        "history": CURVES,
    }


@pytest.mark.parametrize("constant", [False, True])
def test_scatter(tmp_path, constant):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 100, 200)
    prediction = np.ones(200) if constant else truth / 50 + rng.normal(0, 0.2, 200)
    fit_scatter(tmp_path / "s.png", truth, prediction)
    assert ink(tmp_path / "s.png") > 0.01


def test_bars_name_scenes_without_a_correlation(tmp_path):
    scenes = {"a": {"srcc": 0.9, "plcc": 0.8, "n": 10}, "b": {"srcc": None, "plcc": float("nan"), "n": 1}}
    scene_bars(tmp_path / "one.png", scenes)
    scene_bars(tmp_path / "two.png", {"a": scenes["a"], "b": {"srcc": 0.9, "plcc": 0.8, "n": 1}})
    assert ink(tmp_path / "one.png") < ink(tmp_path / "two.png")


def test_radar_and_curves(tmp_path):
    values = {"spaq": 0.9, "livec": 0.8, "bid": 0.85, "live": None}
    radar(tmp_path / "r.png", {"ours": values, "published": {"spaq": 0.8}})
    training_curves(tmp_path / "c.png", CURVES["loss"], CURVES["tests"])
    training_curves(tmp_path / "empty.png", [], {})
    assert ink(tmp_path / "r.png") > 0.02 and ink(tmp_path / "c.png") > ink(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="at least three test sets, got 2"):
        radar(tmp_path / "r.png", {"ours": {"a": 1, "b": 1}})


def test_figures_of_protocols(tmp_path):
    scenes = [record(f"test_for_10{i}_x{i}", {"spaq": 0.8}, "leave-one-out") for i in range(2)]
    names = {path.name for path in draw_figures(scenes, tmp_path / "loo")}
    assert names == {"scenes.png", "training_test_for_100_x0_0.png", "training_test_for_101_x1_0.png"}
    cross = [record("spaq", {"livec": 0.8, "bid": 0.7, "cid2013": 0.9}, "cross-set")]
    names = {path.name for path in draw_figures(cross, tmp_path / "cross")}
    assert names == {"radar.png", "training_spaq_0.png"}
    assert all(path.stat().st_size > 5000 for path in tmp_path.rglob("*.png"))


def test_radar_has_the_published_polygon_where_there_is_one(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "radar", lambda path, models, **_: drawn.update(models))
    draw_figures([record("spaq", {"livec": 0.8, "bid": 0.7, "tid2013": 0.9}, "cross-set")], tmp_path)
    assert drawn == {
        "ours": {"livec": 0.8, "bid": 0.7, "tid2013": 0.9},
        "SIND, published": {"livec": 0.852, "bid": 0.835},
    }


def test_scenes_are_averaged_over_seeds(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "scene_bars", lambda path, scenes, **_: drawn.update(scenes))
    monkeypatch.setattr(figures, "training_curves", lambda *_, **__: None)
    records = [record("test_for_100_Animal", {"spaq": value}, "leave-one-out") for value in (0.6, 0.8, None)]
    draw_figures(records, tmp_path)
    assert drawn == {"Animal": {"srcc": pytest.approx(0.7), "plcc": pytest.approx(0.7), "n": 40}}


def test_figures_of_an_evaluation(tmp_path):
    manifest = make_set(None, "spaq", per_scene=12)
    targets = manifest.oriented_scores()
    predictions = (np.asarray(targets) + np.random.default_rng(0).normal(0, 5, len(targets))).tolist()
    scenes = [entry.scene for entry in manifest.entries]
    report = metrics.report(predictions, targets, scene=scenes)
    images = [entry.image for entry in manifest.entries]
    evaluation = Evaluation("spaq", report, images, predictions, targets, scenes, [])
    written = draw_evaluation(evaluation, manifest, tmp_path / "new")
    assert [path.name for path in written] == ["spaq_scatter.png", "spaq_scenes.png", "spaq_distributions.png"]
    assert all(ink(path) > 0.01 for path in written)


def test_scores_of_a_run_are_drawn_into_another_folder(tmp_path):
    run, drawn = tmp_path / "run", tmp_path / "drawn"
    run.mkdir()
    assert draw_scores(run, drawn) == []
    rows = [f"{number}.png,{number},{2 * number + number % 3},a" for number in range(12)]
    for name, kept in (("my set", rows), ("one", rows[:1])):
        (run / f"scores_{name}.csv").write_text("image,prediction,target,scene\n" + "\n".join(kept) + "\n")
    (figure,) = draw_scores(run, drawn)
    assert figure == drawn / "my_set_scatter.png" and ink(figure) > 0.01
    assert {path.name for path in run.iterdir()} == {"scores_my set.csv", "scores_one.csv"}


def test_no_figure_shows_a_step_that_no_image_supports():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 100, 60)
    y = x + 20 * (x > 50) + rng.normal(0, 1, 60)
    step = metrics.fit_logistic(x, y, 5)
    curve, name = plots.drawable_fit(x, y)
    grid = np.linspace(x.min(), x.max(), 300)
    assert np.abs(np.diff(step(grid))).max() > 10
    assert np.abs(np.diff(curve(grid))).max() < 1
    assert name == "four-parameter logistic"
    smooth, name = plots.drawable_fit(np.linspace(-2, 2, 50), np.tanh(np.linspace(-2, 2, 50)))
    assert smooth.converged and name == "five-parameter logistic"


def test_figure_of_scene_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import figure as figure_module

    figures = []
    save = figure_module.Figure.savefig

    def remember(figure: object, *args: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(figure_module.Figure, "savefig", remember)
    generator = np.random.default_rng(4)
    entries = [
        ManifestEntry(f"{scene}/{number}.png", float(score), scene)
        for scene, shift in (("sea", 20), ("sky", 80), ("sand", 50))
        for number, score in enumerate(generator.normal(shift, 4, size=200))
    ]
    entries.append(ManifestEntry("one.png", 50.0, "single"))  # has no distribution and is left out
    manifest = Manifest("study", entries, ScoreInfo("DMOS", (0.0, 100.0), False))
    path = plots.plot_scene_distributions(manifest, tmp_path / "plots" / "scenes.png")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 1500 and image.height > 300
    left, right = figures[0].axes
    # Lower is better, so the flipped scores of "sky" are the lowest: bottom row.
    assert [label.get_text() for label in left.get_yticklabels()] == ["sky  (200)", "sand  (200)", "sea  (200)"]
    assert left.get_xlabel() == "DMOS, flipped"
    rated, alike = (float(axes.get_title(loc="right").rpartition(" ")[2]) for axes in (left, right))
    assert rated < 0.05 and alike > 0.9
    densities = [[line for line in axes.lines if len(line.get_xdata()) == 400] for axes in (left, right)]
    tops = [[line.get_xdata()[np.argmax(line.get_ydata())] for line in lines] for lines in densities]
    np.testing.assert_allclose(tops[0], [20, 50, 80], atol=3)
    np.testing.assert_allclose(tops[1], [0, 0, 0], atol=0.7)


def test_figure_needs_a_distribution(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no scene has two different scores"):
        plots.plot_scene_distributions(
            Manifest("x", [ManifestEntry("a", 1.0), ManifestEntry("b", 1.0)]), tmp_path / "x.png"
        )
    assert not (tmp_path / "x.png").exists()


def test_figure_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    manifest = Manifest("x", [ManifestEntry("a", 1.0), ManifestEntry("b", 2.0)])
    with pytest.raises(ValueError, match=r"sind-hf\[eval\]"):
        plots.plot_scene_distributions(manifest, tmp_path / "x.png")
