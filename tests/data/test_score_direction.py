"""The direction of scores comes from the scores: published files hold LIVE and CSIQ in both directions."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo
from sind_hf.data.manifests.score_direction import direction_shown
from sind_hf.data.splits.library import read_folds
from sind_hf.data.statistics import compare_with_catalog
from sind_hf.metrics import plcc, srcc


def csiq(references: int = 3, levels: int = 5, kinds: tuple[str, ...] = ("AWGN", "contrast")) -> dict[str, float]:
    """DMOS of CSIQ names, rising with the level."""
    return {
        f"CSIQ/dst_imgs/{kind.lower()}/ref{number}.{kind}.{level}.png": 0.15 * level + 0.03 * number
        for number in range(references)
        for kind in kinds
        for level in range(1, levels + 1)
    }


def flipped(scores: dict[str, float], top: float = 1.0) -> dict[str, float]:
    return {image: top - score for image, score in scores.items()}


def write(path: Path, scores: dict[str, float]) -> Path:
    """A file as it was published: image paths, scores and domain ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [{"image": image, "score": score, "domain_id": 800} for image, score in scores.items()]
    path.write_text(json.dumps({"files": files}))
    return path


def oriented(manifest: Manifest) -> dict[str, float]:
    return {entry.image: entry.score for entry in manifest.oriented().entries}


@pytest.fixture(scope="module")
def live(shared: Path) -> dict[str, float]:
    """DMOS of LIVE by image."""
    files = json.loads((shared / "reference/data_json/all/live_all.json").read_text())["files"]
    return {record["image"]: record["score"] for record in files}


def liqe_scores(shared: Path, number: int, side: str) -> dict[str, float]:
    lines = (shared / f"reference/liqe_splits/live/{number}/live_{side}_clip.txt").read_text().splitlines()
    return {f"LIVE/{fields[0]}": float(fields[1]) for fields in (line.split("\t") for line in lines)}


def test_every_published_cross_set_file_agrees_with_its_whole_manifest(shared: Path) -> None:
    folder = shared / "reference" / "data_json"
    compared = 0
    whole_scores = functools.cache(lambda path: oriented(Manifest.load(path)))  # train and test share one
    for path in sorted(folder.glob("for_cross_set/*/*.json")):
        side = Manifest.load(path)
        whole = folder / "all" / f"{side.dataset}_all.json"
        if whole.is_file():
            scores, opinions = oriented(side), whole_scores(whole)
            assert plcc([scores[image] for image in scores], [opinions[image] for image in scores]) > 0.999, path
            compared += 1
    assert compared == 7


@pytest.mark.parametrize("with_whole", [True, False])
def test_published_random_splits_of_live_are_not_flipped_again(
    shared: Path, live: dict[str, float], tmp_path: Path, with_whole: bool
) -> None:
    for number in range(1, 11):
        for side in ("train", "val", "test"):
            write(tmp_path / f"random_split/live/{number}/live_{side}.json", liqe_scores(shared, number, side))
    if with_whole:
        write(tmp_path / "all/live_all.json", live)
    folds = read_folds(tmp_path, "random-split", "live")
    assert len(folds) == 10
    for fold in folds:
        for side in (fold.train, fold.validation, fold.test):
            assert side is not None and side.score.higher_is_better and side.oriented() == side
            assert side.score.range == (0.0, pytest.approx(114.414709, abs=1e-5))
            assert srcc(side.oriented_scores(), [-live[entry.image] for entry in side.entries]) > 0.9999


def test_live_as_its_authors_publish_it_is_flipped_once(live: dict[str, float], tmp_path: Path) -> None:
    raw = Manifest.load(write(tmp_path / "raw.json", live))
    assert not raw.score.higher_is_better
    other = Manifest.load(write(tmp_path / "other.json", flipped(live, 111.77469352631448)))
    assert other.score.higher_is_better
    assert list(oriented(raw).values()) == pytest.approx(list(oriented(other).values()))


def test_levels_in_names_tell_the_direction(tmp_path: Path) -> None:
    dmos = csiq()
    raw = Manifest.load(write(tmp_path / "raw.json", dmos))
    turned = Manifest.load(write(tmp_path / "turned.json", flipped(dmos)))
    assert (raw.score.higher_is_better, turned.score.higher_is_better) == (False, True)
    assert oriented(raw) == pytest.approx(oriented(turned))
    kadid = [(f"kadid10k/images/I01_01_0{level}.png", 5.0 - level / 2) for level in range(1, 6)]
    assert direction_shown(CATALOG["kadid10k"], kadid) is True
    assert direction_shown(CATALOG["kadid10k"], [(image, 5.0 - score) for image, score in kadid]) is False
    tid = [(f"TID2013/distorted_images/i03_02_{level}.bmp", 6.0 - level / 2) for level in range(1, 6)]
    assert direction_shown(CATALOG["tid2013"], tid) is True


def test_scores_that_do_not_tell_are_compared_with_the_whole_manifest(tmp_path: Path) -> None:
    dmos = csiq(references=6)
    strongest = {image: score for image, score in dmos.items() if image.endswith(".5.png")}
    path = write(tmp_path / "random_split/csiq/1/train.json", flipped(strongest))
    with pytest.raises(ManifestError, match=r"train.json: the file does not tell .*all/csiq_all.json") as error:
        Manifest.load(path)
    assert "\n" not in str(error.value)
    write(tmp_path / "all/csiq_all.json", dmos)
    assert Manifest.load(path).score.higher_is_better
    write(path, strongest)
    assert not Manifest.load(path).score.higher_is_better


def test_a_file_that_contradicts_the_whole_manifest_is_refused(tmp_path: Path) -> None:
    dmos = csiq(references=6)
    write(tmp_path / "all/csiq_all.json", dmos)
    images, scores = list(dmos), np.random.default_rng(1).permutation(list(dmos.values())).tolist()
    path = write(tmp_path / "random_split/csiq/1/train.json", dict(zip(images, scores, strict=True)))
    with pytest.raises(ManifestError, match=r"the scores of CSIQ contradict .*csiq_all.json \(correlation"):
        Manifest.load(path)


def test_a_declared_direction_that_the_scores_contradict_is_refused(tmp_path: Path) -> None:
    entries = [ManifestEntry(image, score) for image, score in csiq().items()]
    manifest = Manifest("csiq", entries, ScoreInfo("DMOS", (0.0, 1.0), higher_is_better=False))
    path = manifest.save(tmp_path / "csiq.json")
    wrong = replace(manifest, score=ScoreInfo("MOS", (0.0, 1.0), higher_is_better=True))
    assert ["lower is better" in problem.what for problem in wrong.validate()] == [True]
    with pytest.raises(ManifestError, match="not saved: score.higher_is_better says that higher is better"):
        wrong.save(tmp_path / "wrong.json")
    path.write_text(path.read_text().replace('"higher_is_better": false', '"higher_is_better": true'))
    with pytest.raises(ManifestError, match="csiq.json: score.higher_is_better says that higher is better, but"):
        Manifest.load(path)


def test_a_fold_that_runs_against_the_whole_manifest_is_refused(tmp_path: Path) -> None:
    scores = {f"koniq10k/{number}.jpg": 10.0 * number for number in range(8)}
    write(tmp_path / "all/koniq10k_all.json", scores)
    write(tmp_path / "random_split/koniq10k/1/train.json", scores)
    write(tmp_path / "random_split/koniq10k/1/test.json", flipped(scores, 100.0))
    with pytest.raises(
        ValueError, match=r"random-split fold 1: its scores contradict .*koniq10k_all.json \(corr.* -1"
    ):
        read_folds(tmp_path, "random-split", "koniq10k")


def test_flipped_scores_are_a_note_and_no_problem() -> None:
    entries = [ManifestEntry(image, score) for image, score in flipped(csiq()).items()]
    checks = compare_with_catalog(Manifest("csiq", entries, ScoreInfo("DMOS", (0.0, 1.0))))
    assert [check.level for check in checks if "flipped" in check.what] == ["note"]
    assert not [check for check in checks if check.level == "problem"]


def test_joined_sets_are_read_when_all_run_the_same_way(tmp_path: Path) -> None:
    mos = {f"koniq10k/{number}.jpg": 10.0 * number for number in range(4)}
    joined = Manifest.load(write(tmp_path / "joined.json", mos | flipped(csiq())))
    assert joined.score == ScoreInfo("score", None, True)
    with pytest.raises(ManifestError, match="opposite directions"):
        Manifest.load(write(tmp_path / "both.json", mos | csiq()))
