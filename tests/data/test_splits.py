from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.splits.splits import (
    cross_set,
    k_folds,
    leave_one_out,
    listed_fold,
    random_split,
    shared_scenes,
)


def manifest_of(entries, dataset="study", **fields):
    values = {"score": ScoreInfo(), "domain_names": {}, **fields}
    return Manifest(dataset=dataset, entries=entries, **values)


def numbered(count, references=None):
    """`count` entries with the images `set/000.png`, …, `references[i]` being the reference of image i."""
    return manifest_of(
        [
            ManifestEntry(f"set/{number:03}.png", float(number), reference=references and references[number])
            for number in range(count)
        ],
        reference_based=references is not None,
    )


def images(manifest):
    return [entry.image for entry in manifest.entries] if manifest else []


def sides(fold):
    return [fold.train, fold.validation, fold.test]


def assert_partition(fold, manifest):
    """Every entry on exactly one side, in the order of the manifest, with the header of the manifest."""
    placed = [entry for side in sides(fold) if side for entry in side.entries]
    assert Counter(placed) == Counter(manifest.entries)
    assert fold.unused == ()
    place = {image: number for number, image in enumerate(images(manifest))}
    for side in sides(fold):
        if side:
            assert [place[image] for image in images(side)] == sorted(place[image] for image in images(side))
            assert replace(side, entries=[]) == replace(manifest, entries=[])


@pytest.fixture
def reference_manifest(shared):
    def load(name):
        path = shared / "reference" / "data_json" / "all" / f"{name}_all.json"
        return replace(Manifest.load(path), dataset=name)

    return load


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("spaq", [118, 2325, 1098, 797, 1196, 815, 1360, 2904, 512]),
        ("eva", [707, 765, 829, 802, 750, 217]),
    ],
)
def test_leave_one_out_on_the_published_sets(reference_manifest, name, sizes):
    manifest = reference_manifest(name)
    folds = leave_one_out(manifest)
    assert [len(fold.test.entries) for fold in folds] == sizes
    for fold in folds:
        assert_partition(fold, manifest)
        assert not set(images(fold.train)) & set(images(fold.test))
        (scene,) = {(entry.domain_id, entry.scene) for entry in fold.test.entries}
        assert fold.name == f"test_for_{scene[0]}_{scene[1]}"
        assert scene[0] not in {entry.domain_id for entry in fold.train.entries}
    assert Counter(image for fold in folds for image in images(fold.test)) == Counter(images(manifest))


def test_leave_one_out_by_name_where_scenes_have_no_ids():
    entries = [
        ManifestEntry(f"{scene}/{number}.png", 1.0, scene) for scene in ("sea/lake", "air") for number in (1, 2)
    ]
    folds = leave_one_out(manifest_of(entries))
    assert [fold.name for fold in folds] == ["test_for_0_air", "test_for_1_sea_lake"]
    assert images(folds[1].test) == ["sea/lake/1.png", "sea/lake/2.png"]


def test_leave_one_out_takes_names_from_the_header():
    entries = [ManifestEntry(f"{number}.png", 1.0, domain_id=number) for number in (701, 700)]
    folds = leave_one_out(manifest_of(entries, domain_names={700: "jp2k"}))
    assert [fold.name for fold in folds] == ["test_for_700_jp2k", "test_for_701"]


def test_leave_one_out_needs_scenes():
    with pytest.raises(ValueError, match=r"study: b.png has no scene; leave-one-out needs one for every image"):
        leave_one_out(manifest_of([ManifestEntry("a.png", 1.0, "x", 1), ManifestEntry("b.png", 1.0)]))
    with pytest.raises(ValueError, match="needs at least 2 scenes, found 1"):
        leave_one_out(manifest_of([ManifestEntry("a.png", 1.0, "x", 1)]))


def test_random_splits_of_live_keep_references_on_one_side(reference_manifest):
    live = reference_manifest("live")
    # The published file does not name the references: 29 of them, assigned here in turn.
    entries = [replace(entry, reference=f"ref{number % 29}.bmp") for number, entry in enumerate(live.entries)]
    live = replace(live, entries=entries, reference_based=True)
    folds = random_split(live)
    assert [fold.name for fold in folds] == [str(number) for number in range(1, 11)]
    for fold in folds:
        assert_partition(fold, live)
        references = [{entry.reference for entry in side.entries} for side in sides(fold)]
        assert [len(side) for side in references] == [20, 3, 6]
        assert len(set.union(*references)) == 29
    assert len({frozenset(images(fold.test)) for fold in folds}) == 10


reference_lists = st.integers(1, 60).flatmap(
    lambda count: st.none() | st.lists(st.sampled_from("abcdefghijkl"), min_size=count, max_size=count)
)


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 60), reference_lists, st.integers(0, 2**31), st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0, 0.5)]))
def test_random_split_is_a_partition(count, references, seed, fractions):
    manifest = numbered(count) if references is None else numbered(len(references), references)
    units = len(manifest.entries) if references is None else len(set(references))
    if units < (5 if fractions[1] else 2):  # round(0.1 * 4) is 0: no validation side
        with pytest.raises(ValueError, match="too few for the fractions"):
            random_split(manifest, fractions=fractions, seed=seed)
        return
    if units == 5 and fractions[1]:  # round(0.5) is 0, too
        with pytest.raises(ValueError, match=r"the sides would get \(4, 0, 1\)"):
            random_split(manifest, fractions=fractions, seed=seed)
        return
    folds = random_split(manifest, splits=3, fractions=fractions, seed=seed)
    for fold in folds:
        assert_partition(fold, manifest)
        assert (fold.validation is None) == (fractions[1] == 0)
        groups = [{entry.reference or entry.image for entry in side.entries} for side in sides(fold) if side]
        assert sum(map(len, groups)) == len(set.union(*groups)) == units
        assert len(groups[-1]) == round(fractions[2] * units)
    assert random_split(manifest, splits=5, fractions=fractions, seed=seed)[:3] == folds


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 60), reference_lists, st.integers(2, 12), st.integers(0, 2**31))
def test_k_folds_test_every_image_once(count, references, folds, seed):
    manifest = numbered(count) if references is None else numbered(len(references), references)
    units = len(manifest.entries) if references is None else len(set(references))
    if folds > units:
        with pytest.raises(ValueError, match=f"images or reference images are too few for {folds} folds"):
            k_folds(manifest, folds, seed)
        return
    result = k_folds(manifest, folds, seed)
    assert [fold.name for fold in result] == [str(number) for number in range(1, folds + 1)]
    for fold in result:
        assert_partition(fold, manifest)
        assert fold.validation is None
        groups = [{entry.reference or entry.image for entry in side.entries} for side in (fold.train, fold.test)]
        assert not groups[0] & groups[1]
        assert len(groups[1]) in (units // folds, -(-units // folds))
    assert Counter(image for fold in result for image in images(fold.test)) == Counter(images(manifest))


def test_eva_in_ten_folds(reference_manifest):
    folds = k_folds(reference_manifest("eva"))
    assert [len(fold.test.entries) for fold in folds] == [407] * 10
    # shuffled: the file is sorted by scene
    assert all(len({entry.scene for entry in fold.test.entries}) == 6 for fold in folds)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([None, *"abcdefghijkl"]), st.sampled_from([None, *"rstuvw"])), min_size=1),
    st.integers(0, 2**31),
)
def test_no_scene_and_no_reference_is_on_two_sides_of_a_split_by_scene(drawn, seed):
    entries = [
        ManifestEntry(f"{number}.png", 1.0, scene, reference=reference)
        for number, (scene, reference) in enumerate(drawn)
    ]
    manifest = manifest_of(entries)
    folds = []
    for draw in (
        lambda: random_split(manifest, splits=2, fractions=(0.5, 0, 0.5), seed=seed, keep_scenes=True),
        lambda: k_folds(manifest, 2, seed, keep_scenes=True),
        lambda: [cross_set(manifest, test_fraction=0.5, seed=seed, keep_scenes=True)],
    ):
        try:
            folds += draw()
        except ValueError as error:
            # Only too few groups may be refused, never two scenes that nothing connects.
            assert "share no scene" in str(error)
            keys = [(each.scene or number, each.reference or number) for number, each in enumerate(entries)]
            assert len(entries) == 1 or all(
                any(set(key) & set(other) for other in keys if other is not key) for key in keys
            )
    for fold in folds:
        assert_partition(fold, manifest)
        for key in ("scene", "reference"):
            train, test = ({getattr(entry, key) for entry in side.entries} for side in (fold.train, fold.test))
            assert not train & test - {None}
    assert shared_scenes(folds)[0] == 0


def test_scenes_are_counted_that_are_tested_and_trained_on():
    entries = [ManifestEntry(f"{number}.png", 1.0, f"scene {number % 6}") for number in range(60)]
    manifest = manifest_of(entries)
    assert shared_scenes(k_folds(manifest, 3)) == (6, 6)
    by_scene = k_folds(manifest, 3, keep_scenes=True)
    assert [len({entry.scene for entry in fold.test.entries}) for fold in by_scene] == [2, 2, 2]
    assert shared_scenes(by_scene) == shared_scenes(leave_one_out(manifest)) == (0, 6)
    assert shared_scenes(k_folds(numbered(9), 3)) == (0, 0)
    with pytest.raises(ValueError, match=r"only 6 groups .* too few for 7 folds; .*--mix-scenes"):
        k_folds(manifest, 7, keep_scenes=True)
    with pytest.raises(ValueError, match=r"a test share of 0.95; .*--mix-scenes"):
        cross_set(manifest, test_fraction=0.95, keep_scenes=True)
    three = replace(manifest, entries=[entry for entry in entries if entry.scene < "scene 3"])
    for fold in random_split(three, keep_scenes=True):  # rounded shares would leave two sides without a scene
        assert [len({entry.scene for entry in side.entries}) for side in fold.sides] == [1, 1, 1]


def test_seeds_make_a_difference():
    manifest = numbered(50)
    for draw in (lambda seed: random_split(manifest, seed=seed)[0], lambda seed: k_folds(manifest, seed=seed)[0]):
        assert draw(1) == draw(1)
        assert images(draw(1).test) != images(draw(2).test)
    assert images(cross_set(manifest, seed=1).test) == images(cross_set(manifest, seed=1).test)
    assert images(cross_set(manifest, seed=1).test) != images(cross_set(manifest, seed=2).test)


def test_an_image_that_is_listed_twice_stays_on_one_side():
    manifest = numbered(20)
    manifest = replace(manifest, entries=manifest.entries * 2)
    for fold in [*random_split(manifest), *k_folds(manifest), cross_set(manifest, seed=0)]:
        assert not set(images(fold.train)) & set(images(fold.test))


def test_splits_refuse_reference_based_sets_without_references():
    manifest = replace(numbered(20), reference_based=True)
    for split in (random_split, k_folds, cross_set):
        with pytest.raises(ValueError, match=r"study: set/000.png names no reference image.*sind-hf data build"):
            split(manifest)


def test_bad_arguments_name_rule_and_values():
    manifest = numbered(20)
    for fractions in [(0.7, 0.2, 0.2), (0.8, 0.2), (1.2, -0.4, 0.2)]:
        with pytest.raises(ValueError, match="fractions must be three shares"):
            random_split(manifest, fractions=fractions)
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        random_split(manifest, splits=0)
    with pytest.raises(ValueError, match="the number of folds must be at least 2, got 1"):
        k_folds(manifest, 1)
    with pytest.raises(ValueError, match=r"test_fraction must be in \[0, 1\], got 1.5"):
        cross_set(manifest, test_fraction=1.5)
    with pytest.raises(ValueError, match="study: there are no images to split"):
        random_split(replace(manifest, entries=[]))


def test_cross_set_draws_by_reference():
    manifest = numbered(40, [f"ref{number % 8}" for number in range(40)])
    fold = cross_set(manifest, seed=3, test_fraction=0.25)
    assert fold.name == "study"
    assert_partition(fold, manifest)
    assert len({entry.reference for entry in fold.test.entries}) == 2
    assert not {entry.reference for entry in fold.train.entries} & {entry.reference for entry in fold.test.entries}


def test_a_dataset_that_is_only_tested_on():
    # No references are needed: nothing is separated.
    manifest = replace(numbered(5), reference_based=True)
    fold = cross_set(manifest, test_fraction=1)
    assert images(fold.train) == []
    assert fold.test == manifest
    fold = cross_set(manifest, test_fraction=0)
    assert fold.train == manifest
    assert images(fold.test) == []


@pytest.mark.parametrize(("name", "unused"), [("koniq10k", 1017), ("spaq", 4)])
def test_published_cross_set_lists(shared, reference_manifest, name, unused):
    manifest = reference_manifest(name)
    # As Q-Align writes them: one folder, named differently.
    folder = shared / "reference" / "data_json" / "for_cross_set"
    published = {side: images(Manifest.load(folder / side / f"{name}_{side}.json")) for side in ("train", "test")}
    lists = {side: [f"qalign/{path.split('/')[-1]}" for path in paths] for side, paths in published.items()}
    fold = cross_set(manifest, train_list=lists["train"], test_list=lists["test"])
    assert set(images(fold.train)) == set(published["train"])
    assert set(images(fold.test)) == set(published["test"])
    assert len(fold.unused) == unused
    assert len(fold.unused) + len(fold.train.entries) + len(fold.test.entries) == len(manifest.entries)


def test_one_list_makes_the_rest_the_other_side():
    manifest = numbered(6)
    fold = cross_set(manifest, test_list=["004.png", "001.png"])
    assert_partition(fold, manifest)
    assert images(fold.test) == ["set/001.png", "set/004.png"]
    fold = cross_set(manifest, train_list=["./set\\004.png"])
    assert_partition(fold, manifest)
    assert images(fold.train) == ["set/004.png"]


def test_a_validation_list():
    everything = {f"set/00{number}.png" for number in range(4)}
    fold = listed_fold(
        numbered(5), "1", train=everything, validation={"set/001.png", "set/002.png"}, test={"set/002.png"}
    )
    assert [images(side) for side in sides(fold)] == [["set/000.png", "set/003.png"], ["set/001.png"], ["set/002.png"]]
    assert fold.unused == ("set/004.png",)


def test_overlapping_lists_leak_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        fold = cross_set(numbered(4), train_list=["x/000.png", "x/001.png"], test_list=["x/001.png", "x/002.png"])
    assert images(fold.train) == ["set/000.png"]
    assert images(fold.test) == ["set/001.png", "set/002.png"]
    assert fold.unused == ("set/003.png",)
    assert "1 images of the train list are also tested on" in caplog.text


def test_lists_that_separate_versions_of_one_image_are_reported(caplog):
    manifest = numbered(4, ["a", "b", "b", "c"])
    with caplog.at_level(logging.WARNING):
        cross_set(manifest, train_list=["000.png", "001.png"], test_list=["003.png"])
        assert not caplog.text
        cross_set(manifest, train_list=["000.png", "001.png"], test_list=["002.png", "003.png"])
    assert "the lists put distorted versions of 1 reference images on both sides" in caplog.text


def test_listed_names_that_the_manifest_lacks_are_reported(caplog):
    entries = [ManifestEntry(f"LIVE/jp2k/img{number}.bmp", 1.0) for number in (1, 2)]
    with caplog.at_level(logging.WARNING):
        fold = cross_set(manifest_of(entries, "live"), test_list=["live/jp2k/img1.bmp", "live/jpeg/img2.bmp"])
    # jpeg/img2.bmp is another image than jp2k/img2.bmp
    assert images(fold.test) == ["LIVE/jp2k/img1.bmp"]
    assert "live: 1 of 2 images of the test list are not in the manifest, e.g. 'jpeg/img2.bmp'" in caplog.text


def test_lists_that_do_not_fit():
    entries = [ManifestEntry(f"LIVE/{folder}/img1.bmp", 1.0) for folder in ("jp2k", "jpeg")]
    manifest = manifest_of(entries, "live")
    with pytest.raises(ValueError, match="live: img1.bmp of the test list fits several images; list longer paths"):
        cross_set(manifest, test_list=["x/img1.bmp"])
    with pytest.raises(ValueError, match="live: no image of the train list is in the manifest, e.g. koniq/7.jpg"):
        cross_set(manifest, train_list=["koniq/7.jpg"], test_list=["jpeg/img1.bmp"])
    with pytest.raises(ValueError, match="live: the test list is empty"):
        cross_set(manifest, test_list=[])
