from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.splits.split_files import liqe_splits, read_folds, read_image_list, write_folds
from sind_hf.data.splits.splits import cross_set, k_folds, leave_one_out, random_split


def study(count=40):
    entries = [
        ManifestEntry(f"study/{number}.png", number / 2, f"scene {number % 3}", 10 * (number % 3))
        for number in range(count)
    ]
    names = {10 * scene: f"scene {scene}" for scene in range(3)}
    return Manifest(dataset="study", entries=entries, score=ScoreInfo("MOS", (0.0, 20.0)), domain_names=names)


def images(manifest):
    return [entry.image for entry in manifest.entries]


@pytest.mark.parametrize(("name", "unused"), [("live", 203), ("bid", 0)])
def test_liqe_lists_fit_the_published_manifests(shared, caplog, name, unused):
    path = shared / "reference" / "data_json" / "all" / f"{name}_all.json"
    manifest = replace(Manifest.load(path), dataset=name)
    folds = liqe_splits(manifest, shared / "reference" / "liqe_splits")
    assert [fold.name for fold in folds] == [str(number) for number in range(1, 11)]
    for fold in folds:
        for side, published in (("train", fold.train), ("val", fold.validation), ("test", fold.test)):
            lines = (
                (shared / "reference" / "liqe_splits" / name / fold.name / f"{name}_{side}_clip.txt")
                .read_text()
                .splitlines()
            )
            listed = {line.split("\t")[0] for line in lines}
            assert {re.sub("^(LIVE|BID)/", "", image) for image in images(published)} == {
                image.removeprefix("ImageDatabase/") for image in listed
            }
        parts = [*images(fold.train), *images(fold.validation), *images(fold.test), *fold.unused]
        assert Counter(parts) == Counter(images(manifest))
        assert len(fold.unused) == unused
    # every listed image is in the manifest
    assert not caplog.text
    # LIVE is listed with flipped scores: the manifest's are kept
    assert set(folds[0].test.entries) <= set(manifest.entries)
    assert liqe_splits(manifest, shared / "reference" / "liqe_splits" / name) == folds


def test_liqe_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="has no numbered folders of LIQE lists"):
        liqe_splits(study(), tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match=r"1 has 0 files \*_train_clip.txt"):
        liqe_splits(study(), tmp_path)
    (tmp_path / "1" / "study_train_clip.txt").write_text("1.png\t1.0\tblur\ta\tb\tinvalid\n2.png\t1.0\n")
    with pytest.raises(ValueError, match=r"study_train_clip.txt, line 2 has 2 tab columns; a LIQE list has 6"):
        liqe_splits(study(), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("train.json", json.dumps([{"id": "1->3", "image": "spaq/1.jpg", "conversations": []}]), ["spaq/1.jpg"]),
        ("test.json", json.dumps([{"img_path": "koniq/1.jpg", "gt_score": 3.4}]), ["koniq/1.jpg"]),
        ("lists.json", json.dumps([{"image": ["a.jpg", "b.jpg"]}]), ["a.jpg", "b.jpg"]),
        ("plain.json", json.dumps(["a.jpg", "b\\c.jpg"]), ["a.jpg", "b/c.jpg"]),
        ("manifest.json", json.dumps({"files": [{"image": "a.jpg", "score": 1}]}), ["a.jpg"]),
        ("para.csv", "sessionId,imageName,semantic\nsession1,iaa_1.jpg,food\n", ["session1/iaa_1.jpg"]),
        ("koniq.csv", '\ufeff"image_name","MOS"\n"1.jpg","3.1"\n', ["1.jpg"]),
        ("names.txt", "a/1.jpg\n\nb 2.jpg\t3.1\n", ["a/1.jpg", "b 2.jpg"]),
    ],
)
def test_published_lists_of_all_kinds(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_image_list(path) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1", "a.json is not valid JSON"),
        (
            "a.json",
            '{"images": []}',
            'a.json is not a list of images: expected a JSON list, or an object with "files"',
        ),
        (
            "a.json",
            '[{"image": "a.jpg"}, {"id": 3}]',
            "a.json, item 1 names no image; expected one of image, img_path",
        ),
        ("a.json", '["a.jpg", 3]', "a.json, item 1 names no image"),
        ("a.csv", "file,score\na.jpg,3\n", "a.csv, line 2 names no image"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_image_list(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"), [("a.csv", "byte 1 is not UTF-8"), ("a.txt", "UTF-8"), ("a.json", "UTF-8")]
)
def test_a_list_that_is_no_utf8_is_named(tmp_path, name, words):
    """Found by fuzzing."""
    (tmp_path / name).write_bytes(b"\x80\n")
    with pytest.raises(ValueError, match=rf"^{tmp_path / name}: .*{words}"):
        read_image_list(tmp_path / name)


def test_a_list_nested_without_end_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_image_list(tmp_path / "a.json")


def test_a_list_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match=r"no.json does not exist"):
        read_image_list(tmp_path / "no.json")


def test_leave_one_out_folders(tmp_path):
    folds = leave_one_out(study())
    written = write_folds(folds, tmp_path, "leave-one-out")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
        f"for_leave_one_out/study/test_for_{10 * scene}_scene {scene}/{side}.json"
        for scene in range(3)
        for side in ("test", "train")
    ]
    assert read_folds(tmp_path, "leave-one-out", "study") == folds


@pytest.mark.parametrize("draw", [random_split, k_folds])
def test_random_split_folders_in_the_order_of_their_numbers(tmp_path, draw):
    folds = draw(study())
    write_folds(folds, tmp_path, "random-split")
    assert (tmp_path / "random_split" / "study" / "10" / "test.json").is_file()
    assert read_folds(tmp_path, "random-split", "study") == folds


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
    with pytest.raises(ValueError, match="cross-set has one fold per data set, got 2"):
        write_folds([fold, fold], tmp_path, "cross-set")


def test_cross_set_folders_of_a_set_that_is_only_tested_on(tmp_path):
    fold = cross_set(study(), test_fraction=1)
    assert write_folds([fold], tmp_path, "cross-set") == [tmp_path / "for_cross_set" / "test" / "study.json"]
    assert read_folds(tmp_path, "cross-set", "study") == [fold]


def test_the_published_cross_set_folder(shared):
    folder = shared / "reference" / "data_json"
    sizes = {}
    for name in ("koniq10k", "spaq", "bid", "live"):
        (fold,) = read_folds(folder, "cross-set", name)
        assert fold.name == fold.train.dataset == fold.test.dataset == name
        sizes[name] = (len(fold.train.entries), len(fold.test.entries))
    assert sizes == {"koniq10k": (7046, 2010), "spaq": (8897, 2224), "bid": (0, 586), "live": (0, 982)}


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
def test_data_set_names_do_not_lead_out_of_the_folder(tmp_path, name):
    fold = cross_set(replace(study(), dataset=name), seed=0)
    with pytest.raises(ValueError, match="cannot be the name of a file; rename the data set"):
        write_folds([fold], tmp_path / "json", "cross-set")
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        read_folds(tmp_path / "json", "cross-set", name)
    assert not list(tmp_path.rglob("*.json"))
