from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from helpers.split_studies import images, study
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.splits.published_lists import liqe_splits, read_image_list


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


def test_damaged_lists_are_named(tmp_path):
    for name, content, words in [
        ("a.csv", b"\x80\n", "byte 1 is not UTF-8"),
        ("a.txt", b"\x80\n", "UTF-8"),
        ("a.json", b"\x80\n", "UTF-8"),
        ("a.json", b"[" * 100_000, "not valid JSON: values are nested too deeply"),
        ("a.json", b"[" + b"[]," * 4_000_001 + b"1]", "it may hold 8,000,003 values, more than 8,000,000"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{tmp_path / name}.*{words}"):
            read_image_list(tmp_path / name)


def test_a_list_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match=r"no.json does not exist"):
        read_image_list(tmp_path / "no.json")
