from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers.split_studies import images, study
from sind_hf.data.manifests.manifest import ScoreInfo
from sind_hf.data.splits.library import has_folds, read_folds, write_folds
from sind_hf.data.splits.splits import cross_set, k_folds, leave_one_out, random_split


def test_leave_one_out_folders(tmp_path):
    folds = leave_one_out(study())
    written = write_folds(folds, tmp_path, "leave-one-out")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
        f"for_leave_one_out/study/test_for_{10 * scene}_scene {scene}/{side}.json"
        for scene in range(3)
        for side in ("test", "train")
    ]
    assert read_folds(tmp_path, "leave-one-out", "study") == folds


@pytest.mark.parametrize(
    ("draw", "protocol", "folder"), [(random_split, "random-split", "random_split"), (k_folds, "k-folds", "k_folds")]
)
def test_numbered_folds_come_back_in_their_order(tmp_path, draw, protocol, folder):
    folds = draw(study())
    write_folds(folds, tmp_path, protocol)
    assert (tmp_path / folder / "study" / "10" / "test.json").is_file()
    assert has_folds(tmp_path, protocol, "study") and not has_folds(tmp_path, protocol, "other")
    assert read_folds(tmp_path, protocol, "study") == folds


def test_folds_on_an_open_scale_are_turned_about_one_score():
    manifest = replace(study(), score=ScoreInfo("DMOS", None, False))
    fold = leave_one_out(manifest)[0]
    oriented = fold.oriented()
    assert oriented.test.score.higher_is_better
    for side, turned in zip(fold.sides, oriented.sides, strict=True):
        assert [entry.score for entry in turned.entries] == [19.5 - entry.score for entry in side.entries]


def test_folds_that_would_stay_beside_others_are_not_mixed_with_them(tmp_path):
    ten = random_split(study())
    files = write_folds(ten, tmp_path, "random-split")
    for fewer in (random_split(study(), splits=5, seed=1), k_folds(study(), 10)):
        with pytest.raises(ValueError, match=r"study: holds folds of another split \(.*json\)"):
            write_folds(fewer, tmp_path, "random-split")
    assert read_folds(tmp_path, "random-split", "study") == ten
    again = random_split(study(), seed=1)
    assert write_folds(again, tmp_path, "random-split") == files
    assert read_folds(tmp_path, "random-split", "study") == again != ten


def test_cross_set_folders(tmp_path):
    fold = cross_set(study(), seed=1)
    write_folds([fold], tmp_path, "cross-set")
    assert (tmp_path / "for_cross_set" / "train" / "study_train.json").is_file()
    assert (tmp_path / "for_cross_set" / "test" / "study_test.json").is_file()
    assert read_folds(tmp_path, "cross-set", "study") == [fold]
    with pytest.raises(ValueError, match="cross-set has one fold per dataset, got 2"):
        write_folds([fold, fold], tmp_path, "cross-set")


def test_cross_set_folders_of_a_dataset_that_is_only_tested_on(tmp_path):
    fold = cross_set(study(), test_fraction=1)
    assert write_folds([fold], tmp_path, "cross-set") == [tmp_path / "for_cross_set" / "test" / "study.json"]
    assert read_folds(tmp_path, "cross-set", "study") == [fold]


def test_the_published_cross_set_folder(shared):
    folder = shared / "reference" / "data_json"
    sizes = {}
    for name in ("koniq10k", "bid", "live"):
        (fold,) = read_folds(folder, "cross-set", name)
        assert fold.name == fold.train.dataset == fold.test.dataset == name
        sizes[name] = (len(fold.train.entries), len(fold.test.entries))
    assert sizes == {"koniq10k": (7046, 2010), "bid": (0, 586), "live": (0, 982)}


def test_folders_of_other_names_for_the_sides(tmp_path):
    folder = tmp_path / "random_split" / "live" / "3"
    folder.mkdir(parents=True)
    for side, number in (("train", 1), ("val", 2), ("test", 3)):
        files = [{"image": f"LIVE/{number}.bmp", "score": 1.0, "domain_id": 700}]
        (folder / f"live_{side}_clip.json").write_text(json.dumps({"files": files}))
    (fold,) = read_folds(tmp_path, "random-split", "live")
    assert fold.name == "3"
    assert [images(side) for side in (fold.train, fold.validation, fold.test)] == [
        ["LIVE/1.bmp"],
        ["LIVE/2.bmp"],
        ["LIVE/3.bmp"],
    ]


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"study has no folds; write them with `sind-hf data split"):
        read_folds(tmp_path, "leave-one-out", "study")
    with pytest.raises(ValueError, match=r"test has neither study_test.json nor study.json"):
        read_folds(tmp_path, "cross-set", "study")
    with pytest.raises(
        ValueError, match="unknown protocol 'loo'; choose one of leave-one-out, cross-set, random-split"
    ):
        read_folds(tmp_path, "loo", "study")
    with pytest.raises(ValueError, match="unknown protocol 'loo'"):
        write_folds([], tmp_path, "loo")
    write_folds(leave_one_out(study()), tmp_path, "leave-one-out")
    (tmp_path / "for_leave_one_out" / "study" / "test_for_0_scene 0" / "train.json").unlink()
    with pytest.raises(ValueError, match="test_for_0_scene 0 has no train.json"):
        read_folds(tmp_path, "leave-one-out", "study")


@pytest.mark.parametrize("name", ["../study", "a/b", "a\\b", ".."])
def test_dataset_names_do_not_lead_out_of_the_folder(tmp_path, name):
    fold = cross_set(replace(study(), dataset=name), seed=0)
    with pytest.raises(ValueError, match="cannot be a file name; rename the dataset"):
        write_folds([fold], tmp_path / "json", "cross-set")
    with pytest.raises(ValueError, match="cannot be a file name"):
        read_folds(tmp_path / "json", "cross-set", name)
    assert not list(tmp_path.rglob("*.json"))
