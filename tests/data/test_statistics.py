from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo
from sind_hf.data.statistics import (
    CatalogCheck,
    aligned,
    compare_with_catalog,
    lower_median,
    manifest_statistics,
    mean_overlap,
    render_statistics,
    sparkline,
)


def study() -> Manifest:
    scores = {"sea": (1.0, 2.0, 4.0, 9.0), "sky": (5.0, 5.0, 8.0)}
    entries = [
        ManifestEntry(f"{scene}/{number}.png", score, scene)
        for scene, values in scores.items()
        for number, score in enumerate(values)
    ]
    return Manifest("study", entries, ScoreInfo("MOS", (0.0, 10.0)))


def levels(checks: list[CatalogCheck]) -> list[str]:
    return [check.level for check in checks]


def test_statistics_of_every_scene() -> None:
    result = manifest_statistics(study())
    sea, sky = result.scenes
    assert (sea.name, sea.count, sea.mean, sea.median, sea.minimum, sea.maximum) == ("sea", 4, 4.0, 2.0, 1.0, 9.0)
    assert sea.deviation == pytest.approx((1 + 0 + 2 + 7) / 4)  # around the lower median 2
    assert (sky.median, sky.deviation) == (5.0, 1.0)
    assert result.edges == pytest.approx(np.arange(17) * 0.625)
    assert np.flatnonzero(sea.histogram).tolist() == [1, 3, 6, 14] and sum(sea.histogram) == 4
    assert (sky.histogram[8], sky.histogram[12], sum(sky.histogram)) == (2, 1, 3)
    assert result.overall.count == 7
    assert result.overall.histogram == tuple(np.add(sea.histogram, sky.histogram))


def test_scores_outside_the_declared_range_stay_in_the_histogram() -> None:
    manifest = replace(study(), score=ScoreInfo("MOS", (0.0, 5.0)))
    result = manifest_statistics(manifest)
    assert result.edges[-1] == 9.0 and sum(result.overall.histogram) == 7


def test_constant_scores_have_statistics() -> None:
    manifest = Manifest("x", [ManifestEntry("a", 3.0), ManifestEntry("b", 3.0)])
    assert manifest_statistics(manifest).scenes[0].deviation == 0.0


def test_empty_manifest_is_an_error() -> None:
    with pytest.raises(ManifestError, match="no entries"):
        manifest_statistics(Manifest("x", []))


def test_lower_median_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    for size in range(1, 12):
        scores = generator.normal(size=size)
        assert lower_median(scores) == torch.median(torch.from_numpy(scores)).item()


def test_alignment_removes_scale_and_shift() -> None:
    scores = np.random.default_rng(1).normal(size=101)
    once = aligned(scores)
    assert lower_median(once) == 0 and np.abs(once).mean() == pytest.approx(1)
    np.testing.assert_allclose(aligned(7 * scores + 3), once)
    assert aligned(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_mean_overlap_is_one_for_the_same_and_zero_for_distant_scenes() -> None:
    scores = np.random.default_rng(2).normal(size=300)
    assert mean_overlap([scores, scores]) == pytest.approx(1)
    assert mean_overlap([scores, scores + 100]) < 0.01
    assert mean_overlap([scores]) == 1.0
    # Two unit normals one apart share 2·Φ(-1/2) = 0.617 of their mass.
    grid = np.random.default_rng(3).normal(size=(2, 20_000))
    assert mean_overlap([grid[0], grid[1] + 1]) == pytest.approx(0.617, abs=0.02)
    scenes = [scores, 5 * scores + 20]
    assert mean_overlap(scenes) < 0.2
    assert mean_overlap([aligned(scene) for scene in scenes]) > 0.99


def test_published_manifests_agree_with_the_catalog(shared: Path) -> None:
    for name in ("spaq", "koniq10k", "livec", "bid", "live", "eva"):
        manifest = Manifest.load(shared / f"reference/data_json/all/{name}_all.json")
        assert levels(compare_with_catalog(manifest)) == ["ok", "ok", "ok"]
    split = Manifest.load(shared / "reference/data_json/for_cross_set/test/koniq10k_test.json")
    checks = compare_with_catalog(split)
    assert levels(checks) == ["note", "ok"]
    assert checks[0].what == "2,010 of 10,073 images; 8,063 are missing unless this is a split"


def test_alignment_brings_the_scenes_of_real_datasets_together(shared: Path) -> None:
    for name in ("spaq", "koniq10k"):
        manifest = Manifest.load(shared / f"reference/data_json/all/{name}_all.json")
        names, classes = manifest.scene_classes()
        scores = np.array(manifest.oriented_scores())
        scenes = [scores[np.array(classes) == number] for number in range(len(names))]
        assert mean_overlap([aligned(scene) for scene in scenes]) > mean_overlap(scenes) + 0.1


def live(*entries: tuple[float, int], **changes: object) -> Manifest:
    rows = [ManifestEntry(f"LIVE/{number}.bmp", score, None, domain) for number, (score, domain) in enumerate(entries)]
    return replace(Manifest("live", rows, ScoreInfo("DMOS", None, False)), **changes)  # type: ignore[arg-type]


def test_findings_against_the_catalog() -> None:
    assert levels(compare_with_catalog(study())) == ["note"]
    assert levels(compare_with_catalog(live((1.0, 700)))) == ["note", "ok"]
    found = {check.what: check.level for check in compare_with_catalog(live((500.0, 700), (1.0, 305)))}
    assert any("1 score outside" in what and level == "problem" for what, level in found.items())
    assert any("does not have: 305" in what and level == "problem" for what, level in found.items())
    wrong = compare_with_catalog(live((1.0, 700), score=ScoreInfo("DMOS")))
    assert any(check.level == "problem" and "lower is better" in check.what for check in wrong)


def test_scene_counts_must_agree_only_where_the_dataset_fixes_them() -> None:
    complete = live(*[(1.0, 700 + number % 5) for number in range(982)])
    checks = compare_with_catalog(complete)
    assert levels(checks) == ["ok", "ok", "problem"] and "jp2k 197 (catalog 227)" in checks[2].what
    assert levels(compare_with_catalog(live(*[(1.0, 700)] * 983)))[0] == "problem"
    assert levels(compare_with_catalog(live(*[(1.0, 700)] * 300))) == ["note", "ok", "problem"]
    entries = [ManifestEntry(f"BID/{number}.JPG", 1.0, None, 400 + number % 9) for number in range(586)]
    relabelled = compare_with_catalog(Manifest("bid", entries))
    assert levels(relabelled) == ["ok", "ok", "note"] and "the scene labels differ" in relabelled[2].what


def test_sparkline_shows_the_smallest_count_and_blanks_nothing_else() -> None:
    assert sparkline([0, 1, 100, 50]) == " ▁█▄"
    assert sparkline([]) == "" and sparkline([0, 0]) == "  "


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_output_names_every_scene_and_check(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_statistics(manifest_statistics(study())))
    text = console.export_text()
    assert "study  7 images  MOS, 0 to 10, higher is better" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["sea"].split()[1:2] == ["4"] and "█" in lines["sea"]
    assert lines["sky"].split()[3:8] == ["6", "5", "1", "5", "8"]
    assert lines["all"].split()[1] == "7"
    assert "study is not a published dataset" in lines["•"]


def test_markup_in_names_is_printed_not_interpreted() -> None:
    manifest = Manifest("[red]x", [ManifestEntry("a", 1.0, "[bold]sea"), ManifestEntry("b", 2.0, "[/]")])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_statistics(manifest_statistics(manifest)))
    text = console.export_text()
    assert "[red]x" in text and "[bold]sea" in text and "[/]" in text
