from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace

import pytest

from helpers.tiny_sets import make_set, write_published
from sind_hf.data.splits.library import load_manifest
from sind_hf.experiments.config import DataOptions, ExperimentOptions
from sind_hf.experiments.protocols import build_folds


@pytest.fixture
def folder(tmp_path):
    """Manifests of our own layout: scenes, no scenes, references, both directions of scores."""
    sets = {
        "spaq": make_set(None, "spaq", range(9), 20),
        "koniq10k": make_set(None, "koniq10k", range(8), 20),
        "livec": make_set(None, "livec", per_scene=10),
        "live": make_set(None, "live", per_scene=5, references=10),
        "csiq": make_set(None, "csiq", per_scene=5, references=10),
        "eva": make_set(None, "eva", per_scene=15),
    }
    for name, manifest in sets.items():
        path = tmp_path / "json" / name / "all.json"
        path.parent.mkdir(parents=True)
        manifest.save(path)
    return tmp_path / "json"


def folds(folder, protocol, train, test=(), data=None, **experiment):
    options = DataOptions(json_dir=str(folder), train=list(train), test=list(test), **data or {})
    return build_folds(options, ExperimentOptions(protocol=protocol, **experiment))


def images(manifest):
    return {entry.image for entry in manifest.entries}


def test_leave_one_out_has_a_fold_per_scene(folder):
    found = folds(folder, "leave-one-out", ["spaq"])
    assert len(found) == 9
    assert found[0].name == "test_for_100_Animal"
    whole = images(load_manifest(str(folder), "spaq"))
    for fold in found:
        (train,), test = fold.train, fold.tests["spaq"]
        assert len({entry.domain_id for entry in test.entries}) == 1
        assert {entry.domain_id for entry in test.entries}.isdisjoint(entry.domain_id for entry in train.entries)
        assert images(train) | images(test) == whole
    assert set().union(*(images(fold.tests["spaq"]) for fold in found)) == whole


def test_published_folds_come_before_our_own(folder):
    whole = load_manifest(str(folder), "spaq").entries
    for number in (100, 101):
        for side in ("train", "test"):
            entries = [entry for entry in whole[:40] if (entry.domain_id == number) == (side == "test")]
            write_published(folder / "for_leave_one_out" / "spaq" / f"test_for_{number}_x" / f"{side}.json", entries)
    found = folds(folder, "leave-one-out", ["spaq"], ["spaq"])
    assert [fold.name for fold in found] == ["test_for_100_x", "test_for_101_x"]
    assert len(found[0].train[0]) + len(found[0].tests["spaq"]) == 40
    assert found[0].origins == {"spaq": f"folds in {folder}"}


def test_cross_set_splits_what_it_trains_on_and_takes_all_of_the_others(folder):
    (fold,) = folds(folder, "cross-set", ["spaq"], ["koniq10k", "spaq", "livec"])
    assert fold.name == "spaq"
    assert {name: len(test) for name, test in fold.tests.items()} == {"koniq10k": 160, "spaq": 36, "livec": 20}
    assert len(fold.train[0]) == 144
    assert images(fold.train[0]).isdisjoint(images(fold.tests["spaq"]))
    (again,) = folds(folder, "cross-set", ["spaq"], ["spaq"])
    assert images(again.train[0]) == images(fold.train[0])
    (other,) = folds(folder, "cross-set", ["spaq"], ["spaq"], split_seed=1)
    assert images(other.train[0]) != images(fold.train[0])
    (alone,) = folds(folder, "cross-set", ["spaq"], ["livec"])
    assert len(alone.train[0]) == 180


def test_published_cross_set_sides(folder):
    whole = load_manifest(str(folder), "koniq10k").entries
    write_published(folder / "for_cross_set" / "train" / "koniq10k_train.json", whole[:100])
    write_published(folder / "for_cross_set" / "test" / "koniq10k_test.json", whole[110:])
    write_published(folder / "for_cross_set" / "test" / "bid.json", make_set(None, "bid").entries)
    (fold,) = folds(folder, "cross-set", ["koniq10k"], ["koniq10k", "BID", "livec"])
    assert len(fold.train[0]) == 100
    assert {name: len(test) for name, test in fold.tests.items()} == {"koniq10k": 50, "bid": 8, "livec": 20}
    assert fold.origins == {
        "koniq10k": f"folds in {folder}",
        "bid": f"folds in {folder}",
        "livec": "the whole manifest",
    }
    with pytest.raises(ValueError, match="the train side of bid has no images; it came from: folds in"):
        folds(folder, "cross-set", ["bid"], ["livec"])


def test_images_of_both_published_sides_are_only_tested_on(folder, caplog):
    whole = load_manifest(str(folder), "koniq10k").entries
    write_published(folder / "for_cross_set" / "train" / "koniq10k_train.json", whole[:100])
    write_published(folder / "for_cross_set" / "test" / "koniq10k_test.json", whole[95:])
    with caplog.at_level(logging.WARNING):
        (fold,) = folds(folder, "cross-set", ["koniq10k"], ["koniq10k"])
    assert len(fold.train[0]) == 95
    assert "5 images are on both sides" in caplog.text


def test_lists_decide(folder, tmp_path):
    names = [entry.image.split("/")[-1] for entry in load_manifest(str(folder), "spaq").entries]
    (tmp_path / "train.json").write_text(json.dumps([{"image": f"spaq/{name}"} for name in names[:50]]))
    with (tmp_path / "test.csv").open("w") as file:
        csv.writer(file).writerows([["imageName"], *([name] for name in names[60:70])])
    lists = {"train_lists": {"SPAQ": str(tmp_path / "train.json")}, "test_lists": {"spaq": str(tmp_path / "test.csv")}}
    (fold,) = folds(folder, "cross-set", ["spaq"], ["spaq", "livec"], data=lists)
    assert len(fold.train[0]) == 50 and len(fold.tests["spaq"]) == 10
    assert "test.csv" in fold.origins["spaq"]
    (official,) = folds(folder, "random-split", ["spaq"], ["spaq"], data=lists)
    assert official.name == "1" and len(official.tests["spaq"]) == 10


def test_random_split_of_joint_sets(folder):
    found = folds(folder, "random-split", ["live", "koniq10k", "csiq"], splits=3, data={"dataset_domain": True})
    assert [fold.name for fold in found] == ["1", "2", "3"]
    for fold in found:
        assert [manifest.dataset for manifest in fold.train] == ["live", "koniq10k", "csiq"]
        assert {name: len(test) for name, test in fold.tests.items()} == {"live": 10, "koniq10k": 32, "csiq": 10}
        live = fold.train[0]
        references = {entry.reference for entry in live.entries}
        assert references.isdisjoint(entry.reference for entry in fold.tests["live"].entries)
        assert {entry.scene for entry in live.entries} == {"live"}
        domains = [{entry.domain_id for entry in manifest.entries} for manifest in fold.train]
        assert all(len(ids) == 1 for ids in domains) and len(set.union(*domains)) == 3
        # Higher is better now, on all sides, with one zero.
        assert live.score.higher_is_better and fold.tests["live"].score.range == live.score.range
    assert images(found[0].tests["live"]) != images(found[1].tests["live"])


def test_scores_that_are_better_when_lower_are_turned(folder):
    raw = {entry.image: entry.score for entry in load_manifest(str(folder), "csiq").entries}
    (fold,) = folds(folder, "cross-set", ["csiq"], ["csiq"])
    for manifest in (*fold.train, *fold.tests.values()):
        assert all(entry.score == pytest.approx(1 - raw[entry.image]) for entry in manifest.entries)


def test_sides_without_a_range_turn_about_one_score(folder):
    manifest = load_manifest(str(folder), "csiq")
    manifest = replace(manifest, score=replace(manifest.score, range=None))
    sides = {"train": manifest.entries[:30], "test": manifest.entries[30:]}
    for side, entries in sides.items():
        path = folder / "random_split" / "csiq" / "1" / f"{side}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(manifest, entries=entries).save(path)
    (fold,) = folds(folder, "random-split", ["csiq"])
    top = max(entry.score for entry in manifest.entries)
    turned = [entry.score for part in (fold.train[0], fold.tests["csiq"]) for entry in part.entries]
    assert turned == pytest.approx([top - entry.score for entry in manifest.entries])


def test_k_folds_test_on_every_image_once(folder):
    found = folds(folder, "random-split", ["eva"], ["eva"], k_folds=10)
    tested = [image for fold in found for image in sorted(images(fold.tests["eva"]))]
    assert len(found) == 10 and sorted(tested) == sorted(images(load_manifest(str(folder), "eva")))


def test_liqe_lists(folder, shared):
    bid = load_manifest(str(shared / "reference" / "data_json"), "bid")
    lists = {"liqe_splits": str(shared / "reference" / "liqe_splits")}
    (folder / "bid").mkdir()
    bid.save(folder / "bid" / "all.json")
    found = folds(folder, "random-split", ["bid", "koniq10k"], data=lists)
    assert [fold.name for fold in found] == [str(number) for number in range(1, 11)]
    sides = found[0].train[0], found[0].tests["bid"]
    lengths = [
        len((shared / "reference" / "liqe_splits" / "bid" / "1" / f"bid_{side}_clip.txt").read_text().splitlines())
        for side in ("train", "test")
    ]
    assert list(map(len, sides)) == lengths
    assert found[0].origins["bid"].startswith("LIQE's lists") and found[0].origins["koniq10k"].startswith("drawn")


def test_splits_that_do_not_pair_up(folder):
    manifest = load_manifest(str(folder), "eva")
    for side, entries in (("train", manifest.entries[:20]), ("test", manifest.entries[20:])):
        write_published(folder / "random_split" / "eva" / "1" / f"{side}.json", entries)
    with pytest.raises(ValueError, match=r"koniq10k has 10 splits \(1, 2.*and eva has 1 \(1\)"):
        folds(folder, "random-split", ["koniq10k", "eva"])


def test_a_scene_of_one_image_is_not_a_fold(folder, caplog):
    manifest = load_manifest(str(folder), "eva")
    lone = [replace(manifest.entries[0], domain_id=7, scene="lone"), *manifest.entries[1:]]
    replace(manifest, entries=lone).save(folder / "eva" / "all.json")
    with caplog.at_level(logging.WARNING):
        found = folds(folder, "leave-one-out", ["eva"])
    assert len(found) == 2 and "no folds for test_for_7_lone" in caplog.text
    assert all(lone[0].image in images(fold.train[0]) for fold in found)
    none = [replace(entry, domain_id=number, scene=str(number)) for number, entry in enumerate(manifest.entries)]
    replace(manifest, entries=none).save(folder / "eva" / "all.json")
    with pytest.raises(ValueError, match="eva: each scene has one image"):
        folds(folder, "leave-one-out", ["eva"])
    for side, entries in (("train", manifest.entries[1:]), ("test", manifest.entries[:1])):
        write_published(folder / "random_split" / "eva" / "1" / f"{side}.json", entries)
    with pytest.raises(ValueError, match="fold 1: the test side of eva has one image, and SRCC needs two"):
        folds(folder, "random-split", ["eva"])


def test_own_manifests_need_no_folder(folder):
    path = str(folder / "eva" / "all.json")
    found = build_folds(DataOptions(train=[path]), ExperimentOptions(protocol="leave-one-out"))
    assert len(found) == 2 and list(found[0].tests) == ["eva"]


def test_chosen_folds(folder):
    found = folds(folder, "leave-one-out", ["spaq"], folds=["test_for_108_Others", "test_for_100_Animal"])
    assert [fold.name for fold in found] == ["test_for_108_Others", "test_for_100_Animal"]


@pytest.mark.parametrize(
    ("protocol", "train", "test", "options", "message"),
    [
        (None, ["spaq"], [], {}, "experiment.protocol is missing"),
        ("cross-set", [], ["spaq"], {}, "data.train names no dataset"),
        ("cross-set", ["spaq"], [], {}, "data.test names no dataset"),
        ("leave-one-out", ["spaq", "eva"], [], {}, "one dataset"),
        ("leave-one-out", ["spaq"], ["eva"], {}, "one dataset"),
        ("leave-one-out", ["ava"], [], {}, r"no manifest of ava \(ava/all.json, all/ava_all.json, ava.json\)"),
        ("leave-one-out", ["spaq"], [], {"folds": ["nine"]}, "no fold 'nine'; there are test_for_100_Animal"),
        ("leave-one-out", ["spaq"], [], {"data": {"hold_out_scenes": ["Animal"]}}, "hold_out_scenes is for single"),
        ("random-split", ["spaq"], [], {"data": {"liqe_splits": "nowhere"}}, "nowhere is not a folder"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, protocol, train, test, options, message):
    with pytest.raises(ValueError, match=message) as error:
        folds(folder, protocol, train, test, **options)
    assert "\n" not in str(error.value)


def test_names_need_a_folder():
    with pytest.raises(ValueError, match=r"data.json_dir is missing: 'spaq' is not a manifest"):
        load_manifest(None, "spaq")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        load_manifest("nowhere", "spaq")


def test_published_files_of_the_reference(shared):
    """The published cross-set files give the published sides."""
    data = DataOptions(
        json_dir=str(shared / "reference" / "data_json"),
        train=["spaq"],
        test=["koniq10k", "spaq", "livec", "live", "bid", "cid2013"],
    )
    (fold,) = build_folds(data, ExperimentOptions(protocol="cross-set"))
    counts = {name: len(test) for name, test in fold.tests.items()}
    assert counts == {"koniq10k": 2010, "spaq": 2224, "livec": 1169, "live": 982, "bid": 586, "cid2013": 474}
    assert len(fold.train[0]) == 8897
    assert fold.tests["live"].score.higher_is_better
