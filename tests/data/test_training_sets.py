from __future__ import annotations

from collections import Counter

import pytest

from helpers.tiny_sets import make_set
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.prepared.prepare import prepare
from sind_hf.data.training_sets import joint_rows, open_named_sets, open_sets, with_dataset_domains
from sind_hf.experiments.config import DataOptions, ExperimentOptions
from sind_hf.experiments.protocols import build_folds


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Images and manifests of three datasets; two of them have an Animal scene."""
    root = tmp_path_factory.mktemp("tree")
    for name, references in (("spaq", 0), ("koniq10k", 0), ("live", 10)):
        path = root / "json" / name / "all.json"
        path.parent.mkdir(parents=True)
        make_set(root / "images", name, per_scene=2 if references else 5, references=references).save(path)
    return root


def opened(tree, train, test=(), **options):
    return open_named_sets(str(tree / "images"), train, test, json_dir=str(tree / "json"), **options)


def scene_names(dataset):
    return [dataset.features["scene"].int2str(scene) for scene in dataset["scene"]]


def test_one_set_keeps_its_scenes(tree):
    data = opened(tree, ["spaq"], ["koniq10k"])
    assert Counter(scene_names(data.train)) == {"Animal": 5, "Cityscape": 5}
    assert data.score_range == (0.0, 100.0)
    assert data.train_images == {"spaq": 10}
    assert list(data.tests) == ["koniq10k"] and len(data.tests["koniq10k"]) == 10


def test_scenes_of_two_sets_stay_apart(tree):
    data = opened(tree, ["spaq", "koniq10k"])
    names = {f"{name}: {scene}": 5 for name in ("spaq", "koniq10k") for scene in ("Animal", "Cityscape")}
    assert Counter(scene_names(data.train)) == names
    assert data.score_range == (0.0, 100.0)


def test_live_is_repeated_beside_others_and_turned(tree):
    fold = build_folds(
        DataOptions(
            image_root=str(tree / "images"),
            json_dir=str(tree / "json"),
            train=["koniq10k", "live"],
            dataset_domain=True,
        ),
        ExperimentOptions(protocol="random-split", splits=1),
    )[0]
    data = open_sets(fold.train, fold.tests, str(tree / "images"))
    scenes = Counter(scene_names(data.train))
    assert scenes == {"koniq10k": len(fold.train[0]), "live": 4 * len(fold.train[1])}
    assert data.train_images == {"koniq10k": len(fold.train[0]), "live": len(fold.train[1])}
    assert data.score_range is None and data.ranges_differ
    raw = {entry.image: entry.score for entry in make_set(None, "live", per_scene=2, references=10).entries}
    for image, score in zip(fold.tests["live"].entries, data.tests["live"]["score"], strict=True):
        assert score == pytest.approx(111.77469352631448 - raw[image.image])


def test_alone_it_is_not_repeated(tree):
    data = opened(tree, ["live"])
    assert len(data.train) == data.train_images["live"] == 20


def test_held_out_scenes(tree):
    data = opened(tree, ["spaq"], hold_out_scenes=["Animal"])
    assert set(scene_names(data.train)) == {"Cityscape"}
    assert set(scene_names(data.tests["spaq_held_out"])) == {"Animal"}
    with pytest.raises(ValueError, match="no scene Zoo; there are Animal, Cityscape"):
        opened(tree, ["spaq"], hold_out_scenes=["Zoo"])


def test_missing_images_are_named(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="spaq: 10 of 10 entries cannot be used in .*img000.png"):
        open_named_sets(str(tmp_path / "empty"), ["spaq"], json_dir=str(tree / "json"))
    with pytest.raises(ValueError, match="data.train names no manifest"):
        open_named_sets("data", [])


def test_prepared_images_are_opened(tree, tmp_path):
    manifest = make_set(None, "spaq", per_scene=5)
    images = tmp_path / "images" / "SPAQ"
    images.mkdir(parents=True)
    for entry in manifest.entries:
        name = entry.image.split("/")[-1]
        (images / name).write_bytes((tree / "images" / "SPAQ" / name).read_bytes())
    (images / "img003.png").write_bytes(b"no image")
    prepare(manifest, tmp_path / "images", tmp_path / "prepared", view_size=56)
    data = open_named_sets(str(tmp_path / "prepared"), ["spaq"], json_dir=str(tree / "json"))
    assert len(data.train) == 9 and "global_picture" in data.train.column_names


def manifest_of(dataset, domains):
    entries = [
        ManifestEntry(f"{dataset}/{number}.png", float(number), f"scene {domain}", domain)
        for number, domain in enumerate(domains)
    ]
    names = {domain: f"scene {domain}" for domain in domains}
    return Manifest(dataset=dataset, entries=entries, domain_names=names)


def test_the_data_set_is_the_domain():
    # As published, BID and CID2013 collide under domain_id // 100, and PIPAL falls in two.
    bid, cid, pipal = (
        manifest_of("bid", [400, 403]),
        manifest_of("cid2013", [450]),
        manifest_of("pipal", [1599, 1600]),
    )
    result = with_dataset_domains([pipal, bid, cid])
    assert [manifest.dataset for manifest in result] == ["pipal", "bid", "cid2013"]
    domains = [{(entry.domain_id, entry.scene) for entry in manifest.entries} for manifest in result]
    assert all(len(pairs) == 1 for pairs in domains)
    assert len(set.union(*domains)) == 3
    for manifest, ((domain, scene),) in zip(result, domains, strict=True):
        assert scene == manifest.dataset
        assert manifest.domain_names == {domain: scene}
    # neither the order nor the split decides on the ids
    again = with_dataset_domains([bid, bid, pipal, cid])
    assert [again[0], again[2], again[3]] == [result[1], result[0], result[2]]
    assert again[1] == again[0]


def test_spaq_keeps_its_scenes():
    spaq = manifest_of("spaq", [0, 1, 100, 108])
    spaq.domain_names[2] = "a scene of another fold"
    result = with_dataset_domains([spaq, manifest_of("koniq10k", [300, 301]), manifest_of("live", [700])])
    assert result[0] == spaq
    others = {entry.domain_id for manifest in result[1:] for entry in manifest.entries}
    assert len(others) == 2
    assert not others & {0, 1, 2, 100, 108}


def test_live_and_csiq_are_repeated_in_joint_training():
    sets = [manifest_of(name, [1, 1]) for name in ("live", "bid", "csiq")]
    rows = joint_rows(sets)
    merged = [entry.image for manifest in sets for entry in manifest.entries]
    times = Counter(merged[row] for row in rows)
    assert times == {
        f"{name}/{n}.png": count for name, count in (("live", 4), ("bid", 1), ("csiq", 4)) for n in (0, 1)
    }
    assert joint_rows(sets[:1]) == [0, 1]
    assert joint_rows([sets[0], sets[0]]) == [0, 1, 2, 3]


def test_rows_are_those_of_the_merged_manifest():
    sets = with_dataset_domains([manifest_of("spaq", [100, 101]), manifest_of("live", [700])])
    merged = sets[0].merge(*sets[1:])
    drawn = [merged.entries[row] for row in joint_rows(sets)]
    assert [entry.scene for entry in drawn] == ["scene 100", "scene 101", "live", "live", "live", "live"]
    names, classes = merged.scene_classes()
    assert len(names) == 3
    assert len({classes[row] for row in joint_rows(sets)}) == 3
