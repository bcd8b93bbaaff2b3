from __future__ import annotations

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo

HEADER = {
    "schema_version": 1,
    "dataset": "study",
    "score": {"name": "MOS", "range": [0, 100], "higher_is_better": True},
}


def small() -> Manifest:
    entries = [
        ManifestEntry("a/1.png", 10.0, "Animal", 300, reference="a/ref.png", distortion="blur"),
        ManifestEntry("a/2.png", 40.5, "Human", 302),
        ManifestEntry("b/3.png", -3.25, "Animal", 300),
    ]
    return Manifest(
        "study", entries, ScoreInfo("MOS", (-10.0, 100.0)), {300: "Animal", 302: "Human"}, True, "scores.csv"
    )


def write(path: Path, entries: object, **header: object) -> Path:
    path.write_text(json.dumps({**HEADER, **header, "files": entries}))
    return path


def error_of(path: Path, **options: int) -> str:
    with pytest.raises(ManifestError) as caught:
        Manifest.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


# Reading and writing -------------------------------------------------------------------------------------------------


def test_saved_manifest_reads_back_equal(tmp_path: Path) -> None:
    path = small().save(tmp_path / "new" / "study.json")
    assert Manifest.load(path) == small()


def test_file_has_the_documented_keys_in_their_order(tmp_path: Path) -> None:
    text = small().save(tmp_path / "m.json").read_text()
    assert list(json.loads(text)) == [
        "schema_version",
        "dataset",
        "score",
        "domain_name",
        "reference_based",
        "source",
        "files",
    ]
    assert '"range": [-10, 100]' in text
    assert list(json.loads(text)["files"][0])[:4] == ["image", "score", "scene", "domain_id"]
    assert "reference" not in json.loads(text)["files"][1]
    assert len(text.splitlines()) == 13  # one entry per line


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small().save(tmp_path / "m.json")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ManifestError, match="the disk is full"):
        replace(small(), dataset="other").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "entry",
    [
        ManifestEntry("a/1.png", math.nan),
        ManifestEntry("../1.png", 1.0),
        ManifestEntry("a/./1.png", 1.0, None),  # the same file as a/1.png
        ManifestEntry("a/9.png", 1.0, "Plant", 300),
        ManifestEntry("a/\ud800.png", 1.0),
    ],
)
def test_invalid_manifest_is_not_saved(tmp_path: Path, entry: ManifestEntry) -> None:
    manifest = small()
    manifest.entries.append(entry)
    with pytest.raises(ManifestError, match="entry 4"):
        manifest.save(tmp_path / "m.json")
    assert not list(tmp_path.iterdir())


def test_domain_names_must_have_integer_keys() -> None:
    assert "domain_name" in str(replace(small(), domain_names={"300": "Animal"}).validate()[0])


# Published files -----------------------------------------------------------------------------------------------------


def test_published_reference_files_load_unchanged(shared: Path, tmp_path: Path) -> None:
    paths = sorted((shared / "reference" / "data_json").rglob("*.json"))
    assert len(paths) == 14
    for path in paths:
        raw = json.loads(path.read_text())
        manifest = Manifest.load(path)
        assert [(entry.image, entry.score, entry.domain_id) for entry in manifest.entries] == [
            (record["image"], record["score"], record["domain_id"]) for record in raw["files"]
        ]
        assert [entry.scene for entry in manifest.entries] == [
            record.get("scene", record.get("dist_type")) for record in raw["files"]
        ]
        assert {str(key): name for key, name in manifest.domain_names.items()} == raw.get("domain_name", {})
        assert manifest.dataset == path.stem.split("_")[0]
        assert manifest.validate() == []
        if len(manifest) < 2500:
            assert Manifest.load(manifest.save(tmp_path / "m.json")) == manifest


def test_published_live_is_a_scale_of_degradation(shared: Path) -> None:
    live = Manifest.load(shared / "reference/data_json/all/live_all.json")
    assert live.score.name == "DMOS" and not live.score.higher_is_better and live.reference_based
    raw = [entry.score for entry in live.entries]
    assert live.oriented_scores() == [max(raw) - score for score in raw]  # the published flip
    assert min(live.oriented_scores()) == 0
    assert live.entries[0].distortion == "jp2k"


def published(path: Path, *records: dict[str, object], **header: object) -> Path:
    path.write_text(json.dumps({"files": records, **header}))
    return path


def test_published_labels_of_the_other_sets(tmp_path: Path) -> None:
    tid = Manifest.load(
        published(
            tmp_path / "tid.json",
            {"image": "TID2013/distorted_images/i01_01_1.bmp", "score": 5.5, "dist_dype": 1, "domain_id": 901},
            domain_name={"901": 1},
        )
    )
    assert (tid.dataset, tid.entries[0].scene, tid.domain_names) == ("tid2013", "1", {901: "1"})
    agi = Manifest.load(
        published(
            tmp_path / "agi.json",
            {"image": "AGIQA-3K/images/x.jpg", "score": 2, "style": "anime", "domain_id": 501},
        )
    )
    assert (agi.dataset, agi.entries[0].scene, agi.entries[0].distortion) == ("agiqa3k", "anime", None)
    ava = Manifest.load(
        published(
            tmp_path / "ava.json",
            {"image": "AVA/data/image/1.jpg", "score": 5.1, "ratings": [1, 2], "sem_tags": ["x"], "domain_id": 1300},
        )
    )
    assert (ava.dataset, ava.score.range, ava.entries[0].scene) == ("ava", (1.0, 10.0), None)


def test_published_domain_id_decides_over_a_contradicting_scene(tmp_path: Path) -> None:
    path = published(
        tmp_path / "spaq.json",
        {"image": "SPAQ/TestImage/1.jpg", "score": 1.0, "scene": "Plant", "domain_id": 100},
        domain_name={"100": "Animal"},
    )
    assert Manifest.load(path).entries[0].scene == "Animal"


def test_unknown_paths_take_the_name_of_the_file(tmp_path: Path) -> None:
    manifest = Manifest.load(published(tmp_path / "mine.json", {"image": "mine/1.jpg", "score": 1.0}))
    assert (manifest.dataset, manifest.score) == ("mine", ScoreInfo())


def test_published_file_may_join_datasets_of_one_direction_only(tmp_path: Path) -> None:
    spaq = {"image": "SPAQ/TestImage/1.jpg", "score": 1.0}
    joined = Manifest.load(published(tmp_path / "j.json", spaq, {"image": "BID/DatabaseImage0001.JPG", "score": 1.0}))
    assert (joined.dataset, joined.score.range) == ("spaq+bid", None)
    published(tmp_path / "k.json", spaq, {"image": "LIVE/wn/img1.bmp", "score": 1.0})
    assert "opposite directions" in error_of(tmp_path / "k.json")


# Hostile files -------------------------------------------------------------------------------------------------------

GOOD = {"image": "a.png", "score": 1.0}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"image": "/etc/passwd", "score": 1}, "absolute"),
        ({"image": "C:/x.png", "score": 1}, "absolute"),
        ({"image": "a/../../x.png", "score": 1}, "'..'"),
        ({"image": "a\\..\\x.png", "score": 1}, "backslash"),
        ({"image": "", "score": 1}, "empty"),
        ({"image": "folder/", "score": 1}, "folder"),
        ({"image": "ä" * 128, "score": 1}, "longer than file systems allow"),
        ({"image": "/".join(["folder"] * 600), "score": 1}, "longer than file systems allow"),
        ({"image": "a\x00.png", "score": 1}, "control characters"),
        ({"image": "a\n\x1b[31m.png", "score": 1}, "control characters"),
        ({"image": "\ud800.png", "score": 1}, "broken Unicode"),
        ({"image": 3, "score": 1}, "must be a string"),
        ({"image": ["a.png"], "score": 1}, "must be a string"),
        ({"image": None, "score": 1}, "must be a string"),
        ({"score": 1}, "image is missing"),
        ({"image": "b.png"}, "score is missing"),
        ({"image": "b.png", "score": "1.5"}, "without quotes"),
        ({"image": "b.png", "score": True}, "must be a number"),
        ({"image": "b.png", "score": None}, "must be a number"),
        ({"image": "b.png", "score": [1]}, "must be a number"),
        ({"image": "b.png", "score": 10**400}, "finite"),
        ({"image": "b.png", "score": 1e300}, "finite"),
        ({"image": "b.png", "score": 1, "domain_id": True}, "domain_id"),
        ({"image": "b.png", "score": 1, "domain_id": 1.0}, "domain_id"),
        ({"image": "b.png", "score": 1, "domain_id": -1}, "domain_id"),
        ({"image": "b.png", "score": 1, "domain_id": 2**63}, "domain_id"),
        ({"image": "b.png", "score": 1, "scene": 5}, "scene"),
        ({"image": "b.png", "score": 1, "scene": " "}, "scene is empty"),
        ({"image": "b.png", "score": 1, "reference": "/ref.png"}, "reference"),
        ({"image": "b.png", "score": 1, "scenee": "x"}, "did you mean 'scene'"),
        ({"image": "a.png", "score": 2}, "already entry 1"),
        ({"image": ".//a.png", "score": 2}, "already entry 1"),
        ([], "must be an object"),
        (None, "must be an object"),
        ("a.png", "must be an object"),
    ],
)
def test_hostile_entry_is_refused_with_its_number_and_line(tmp_path: Path, entry: object, expected: str) -> None:
    text = json.dumps(HEADER)[:-1] + ',\n"files": [\n' + json.dumps(GOOD) + ",\n" + json.dumps(entry) + "\n]}"
    (tmp_path / "m.json").write_text(text)
    message = error_of(tmp_path / "m.json")
    assert "entry 2 (line 4)" in message
    assert expected in message
    assert "more problem" not in message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"schema_version": 2}, "upgrade"),
        ({"schema_version": True}, "schema_version"),
        ({"schema_version": "1"}, "schema_version"),
        ({"schema_version": None}, "schema_version"),
        ({"dataset": ""}, "dataset is empty"),
        ({"dataset": None}, "dataset"),
        ({"score": "MOS"}, "score of the header"),
        ({"score": {"range": [5, 1]}}, "empty"),
        ({"score": {"range": [1]}}, "score.range"),
        ({"score": {"range": ["0", "1"]}}, "score.range"),
        ({"score": {"higher_is_better": 1}}, "higher_is_better"),
        ({"score": {"nmae": "MOS"}}, "did you mean 'name'"),
        ({"domain_name": [1]}, "domain_name"),
        ({"domain_name": {"x": "Animal"}}, "domain_name"),
        ({"domain_name": {"-1": "Animal"}}, "domain_name"),
        ({"domain_name": {"9" * 5000: "Animal"}}, "domain_name"),
        ({"domain_name": {"300": 7}}, "domain_name of 300"),
        ({"reference_based": "no"}, "reference_based"),
        ({"source": 3}, "source"),
        ({"domain_names": {}}, "did you mean 'domain_name'"),
    ],
)
def test_hostile_header_is_refused(tmp_path: Path, header: dict[str, object], expected: str) -> None:
    assert expected in error_of(write(tmp_path / "m.json", [GOOD], **header))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "line 1"),
        (b"image,score\na.png,1\n", "JSON object"),
        (b"[]", "JSON object"),
        (b"3", "JSON object"),
        (b'{"files": [{"image": "a.png", "score": 1}]', "the end"),
        (b'{"files": [{"image": "a.png", "score": 1},]}', "line 1"),
        (b'{"files": [{"image": "a.png", "score": 1}]} x', "after the end"),
        (b'{"files": {"image": "a.png"}}', "not a list"),
        (b'{"images": []}', "no key 'files'"),
        (b'{"files": []}', "at least one entry"),
        (b'{"files": [], "files": []}', "twice"),
        (b'{"domain_name": {}, "domain_name": {}, "files": []}', "twice"),
        (b'{"files": [{"image": "a.png", "image": "/b.png", "score": 1}]}', "twice"),
        (b'{"files": [{"image": "a.png", "score": NaN}]}', "NaN"),
        (b'{"files": [{"image": "a.png", "score": -Infinity}]}', "Infinity"),
        (b'{"files": [{"image": "a.png", "score": 1e999}]}', "finite"),
        (b'{"files": [{"image": "a.png", "score": ' + b"1" * 5000 + b"}]}", "ordinary numbers"),
        (b'{"files": [' + b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": [' + b"[]," * 4_000_001 + b'1], "files": []}', "more than 8,000,000; split the file"),
        (b'\xef\xbb\xbf{"files": []}', "byte order mark"),
        ('{"files": []}'.encode("utf-16"), "byte order mark"),
        ('{"files": []}'.encode("utf-16-le"), "line 1"),
        (b'{"files": [{"image": "\xe4.png", "score": 1}]}', "byte 23 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
    ],
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "m.json").write_bytes(data)
    assert expected in error_of(tmp_path / "m.json")


def test_only_the_first_problem_is_spelled_out_and_the_others_counted(tmp_path: Path) -> None:
    bad = [{"image": f"/{number}.png", "score": "x"} for number in range(50)]
    message = error_of(write(tmp_path / "m.json", [GOOD, *bad]))
    assert "entry 2" in message and message.endswith("(and 99 more problems)")


def test_contradicting_scenes_are_refused_by_entry(tmp_path: Path) -> None:
    entries = [
        {**GOOD, "scene": "Animal", "domain_id": 300},
        {"image": "b", "score": 1, "scene": "X", "domain_id": 300},
    ]
    message = error_of(write(tmp_path / "m.json", entries))
    assert "entry 2" in message and "'Animal'" in message and "entry 1" in message
    message = error_of(write(tmp_path / "m.json", entries[1:], domain_name={"300": "Animal"}))
    assert "entry 1" in message and "domain_name" in message


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)  # sparse
    start = time.process_time()
    assert "max_bytes" in error_of(path)
    assert time.process_time() - start < 2
    write(path, [GOOD])
    assert "larger than 20 bytes" in error_of(path, max_bytes=20)
    assert len(Manifest.load(path, max_bytes=path.stat().st_size)) == 1


def test_junk_below_the_byte_limit_costs_bounded_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b'{"files":[' + b"0," * 200_000 + b"0]}")
    start = time.process_time()
    message = error_of(path, max_bytes=2**26)
    assert "entry 1 (line 1)" in message and message.endswith("(and at least 999 more problems)")
    assert "more than 15,625 entries" in error_of(path, max_bytes=1_000_000)
    assert time.process_time() - start < 5


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "absent.json")
    assert "not a file" in error_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert "not a file" in error_of(tmp_path / "pipe")


def load_or_refuse(path: Path) -> None:
    try:
        manifest = Manifest.load(path)
    except ManifestError as error:
        assert "\n" not in str(error)
    else:
        assert manifest.validate() == []
        for entry in manifest.entries:
            assert math.isfinite(entry.score)
            assert not Path(entry.image).is_absolute() and ".." not in Path(entry.image).parts
        again = manifest.save(path.with_name("again.json"))
        assert Manifest.load(again) == manifest


# tests/fuzz draws other inputs for as long as it is given time.
fuzz = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
likely_entries = st.fixed_dictionaries(
    {"image": st.sampled_from(["a.png", "b.png", "./a.png", "SPAQ/1.jpg", "LIVE/1.bmp", "/x", "../x"]) | json_values},
    optional={
        "score": st.floats() | st.integers() | json_values,
        "scene": st.sampled_from(["Animal", "Human"]) | json_values,
        "domain_id": st.sampled_from([300, 301]) | json_values,
        "dist_type": json_values,
        "reference": st.just("r.png") | json_values,
    },
)
likely_files = st.fixed_dictionaries(
    {"files": st.lists(likely_entries, max_size=4) | json_values},
    optional={
        "schema_version": st.just(1) | json_values,
        "dataset": st.just("x") | json_values,
        "score": st.fixed_dictionaries({"range": st.just([0, 1]) | json_values}) | json_values,
        "domain_name": st.dictionaries(st.sampled_from(["300", "301", "x"]), st.just("Animal") | json_values)
        | json_values,
        "source": json_values,
    },
)


@fuzz
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_one_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz.json"
    path.write_bytes(data)
    load_or_refuse(path)


@fuzz
@given(value=likely_files | json_values)
def test_any_json_gives_a_manifest_or_one_error(tmp_path: Path, value: object) -> None:
    path = tmp_path / "fuzz.json"
    path.write_text(json.dumps(value))
    load_or_refuse(path)


@fuzz
@given(data=st.data())
def test_a_damaged_manifest_gives_a_manifest_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    path = small().save(tmp_path / "m.json")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(raw)
    load_or_refuse(path)


@fuzz
@given(st.lists(st.tuples(st.text(min_size=1, max_size=12), st.floats(-1e6, 1e6)), min_size=1, max_size=5))
def test_every_valid_manifest_survives_a_round_trip(tmp_path: Path, pairs: list[tuple[str, float]]) -> None:
    manifest = Manifest("études", [ManifestEntry(name, score, name) for name, score in pairs], ScoreInfo("JOD"))
    if manifest.validate():
        with pytest.raises(ManifestError):
            manifest.save(tmp_path / "m.json")
    else:
        assert Manifest.load(manifest.save(tmp_path / "m.json")) == manifest


# Images on disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for number, entry in enumerate(small().entries):
        path = root / entry.image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (60 * number, 0, 0)).save(path)
    return root


def test_complete_images_have_no_problems(image_root: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert small().validate(image_root, verify=True, progress=lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_all_missing_and_unreadable_images_are_named(image_root: Path) -> None:
    (image_root / "a/1.png").unlink()
    (image_root / "a/2.png").write_bytes((image_root / "b/3.png").read_bytes()[:45])
    (image_root / "b/3.png").unlink()
    (image_root / "b/3.png").mkdir()
    kinds = [(problem.entry, problem.kind, problem.image) for problem in small().validate(image_root, verify=True)]
    assert kinds == [(1, "missing", "a/1.png"), (2, "unreadable", "a/2.png"), (3, "missing", "b/3.png")]
    assert [problem.entry for problem in small().validate(image_root)] == [1, 3]


def test_symbolic_links_out_of_the_root_are_problems(image_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (image_root / "b").rename(outside)
    (image_root / "b").symlink_to(outside)  # a folder
    (image_root / "a/1.png").unlink()
    (image_root / "a/1.png").symlink_to(outside / "3.png")  # a file
    (image_root / "a/2.png").rename(image_root / "a/real.png")
    (image_root / "a/2.png").symlink_to("real.png")  # stays inside
    problems = small().validate(image_root)
    assert [(problem.entry, problem.kind) for problem in problems] == [(1, "path"), (3, "path")]
    (image_root / "a/1.png").unlink()
    (image_root / "a/1.png").symlink_to("1.png")  # a loop
    assert small().validate(image_root)[0].kind == "missing"


def test_entries_with_bad_paths_are_not_looked_up(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    manifest = replace(small(), entries=[ManifestEntry("../secret.png", 1.0), *small().entries[:2]])
    (image_root / "a/2.png").unlink()
    problems = manifest.validate(image_root, verify=True)
    assert [(problem.entry, problem.kind) for problem in problems] == [(1, "path"), (3, "missing")]


def test_wrong_image_root_is_one_problem(tmp_path: Path) -> None:
    (problem,) = small().validate(tmp_path / "absent")
    assert "image root" in str(problem)


# Working with manifests ----------------------------------------------------------------------------------------------


def test_filter_keeps_order_and_header_and_copies(tmp_path: Path) -> None:
    manifest = small()
    animals = manifest.filter(lambda entry: entry.domain_id == 300)
    assert [entry.image for entry in animals.entries] == ["a/1.png", "b/3.png"]
    assert (animals.score, animals.domain_names) == (manifest.score, manifest.domain_names)
    animals.domain_names[1] = "x"
    assert len(manifest) == 3 and 1 not in manifest.domain_names


def test_merge_joins_entries_and_domain_names() -> None:
    other = Manifest(
        "two", [ManifestEntry("c.png", 3.0, "Animal", 100)], ScoreInfo("MOS", (0.0, 5.0)), {100: "Animal"}
    )
    merged = small().merge(other)
    assert merged.dataset == "study+two"
    assert [entry.image for entry in merged.entries] == ["a/1.png", "a/2.png", "b/3.png", "c.png"]
    assert merged.score == ScoreInfo("MOS", None, True)
    assert merged.domain_names == {100: "Animal", 300: "Animal", 302: "Human"}
    names, classes = merged.scene_classes()
    assert names == ["Animal (100)", "Animal (300)", "Human"] and classes == [1, 2, 1, 0]


def test_merge_refuses_duplicates_other_directions_and_other_names() -> None:
    with pytest.raises(ManifestError, match="already entry 1"):
        small().merge(small())
    with pytest.raises(ManifestError, match="lower scores are better"):
        small().merge(Manifest("live", [ManifestEntry("c.png", 1.0)], ScoreInfo("DMOS", None, False)))
    with pytest.raises(ManifestError, match="domain 300"):
        small().merge(Manifest("x", [ManifestEntry("c.png", 1.0)], domain_names={300: "Plant"}))


def test_oriented_scores_flip_by_range_else_by_maximum() -> None:
    entries = [ManifestEntry("a.png", 10.0), ManifestEntry("b.png", 70.0)]
    flipped = Manifest("x", entries, ScoreInfo("DMOS", (0.0, 100.0), False))
    assert flipped.oriented_scores() == [90.0, 30.0]
    assert flipped.oriented_range() == (0.0, 100.0)
    assert replace(flipped, score=ScoreInfo("DMOS", (-5.0, 100.0), False)).oriented_range() == (0.0, 105.0)
    assert replace(flipped, score=ScoreInfo("DMOS", None, False)).oriented_scores() == [60.0, 0.0]
    assert replace(flipped, score=ScoreInfo("MOS", (0.0, 100.0))).oriented_scores() == [10.0, 70.0]


def test_dataset_has_lazy_images_scores_and_scene_classes(image_root: Path) -> None:
    dataset = small().to_dataset(image_root)
    assert dataset.column_names == ["image", "score", "scene", "reference", "domain_id"]
    assert dataset.features["scene"].names == ["Animal", "Human"]
    assert dataset.features["score"].dtype == "float64"
    row = dataset[1]
    assert row["image"].getpixel((0, 0)) == (60, 0, 0)
    assert (row["score"], row["scene"], row["domain_id"], row["reference"]) == (40.5, 1, 302, None)
    (image_root / "a/1.png").unlink()
    lazy = small().to_dataset(image_root)  # nothing is opened yet
    assert lazy["score"][:] == [10.0, 40.5, -3.25]
    with pytest.raises(FileNotFoundError):
        lazy[0]


def test_streaming_dataset_gives_the_same_rows(image_root: Path) -> None:
    stream = small().to_dataset(image_root, streaming=True)
    table = small().to_dataset(image_root)
    assert [(row["score"], row["scene"]) for row in stream] == [(row["score"], row["scene"]) for row in table]


def test_oriented_manifest_has_higher_scores_for_better_images() -> None:
    entries = [ManifestEntry(f"live/{number}.png", float(number)) for number in range(3)]
    dmos = Manifest("live", entries, ScoreInfo("DMOS", (-2.5, 110.0), False))
    oriented = dmos.oriented()
    assert [entry.score for entry in oriented.entries] == [110.0, 109.0, 108.0]
    assert oriented.score == ScoreInfo("DMOS", (0.0, 112.5), True)
    assert [entry.score for entry in dmos.entries] == [0.0, 1.0, 2.0]
    assert oriented.oriented() is oriented
    open_scale = replace(dmos, score=ScoreInfo("DMOS", None, False)).oriented()
    assert [entry.score for entry in open_scale.entries] == [2.0, 1.0, 0.0]
    assert open_scale.score == ScoreInfo("DMOS", None, True)


def test_dataset_scores_are_oriented_unless_raw_is_asked_for(image_root: Path) -> None:
    manifest = replace(small(), score=ScoreInfo("DMOS", (-10.0, 100.0), False))
    assert manifest.to_dataset(image_root)["score"][:] == [90.0, 59.5, 103.25]
    assert manifest.to_dataset(image_root, oriented=False)["score"][:] == [10.0, 40.5, -3.25]


def test_dataset_without_scenes_has_one_class(image_root: Path) -> None:
    entries = [ManifestEntry(entry.image, entry.score) for entry in small().entries]
    dataset = Manifest("x", entries).to_dataset(image_root)
    assert dataset.column_names == ["image", "score", "scene"]
    assert dataset.features["scene"].names == ["all"] and dataset["scene"][:] == [0, 0, 0]


def test_scene_classes_of_ids_names_and_neither() -> None:
    entries = [
        ManifestEntry("1", 0.0),
        ManifestEntry("2", 0.0, "zoo"),
        ManifestEntry("3", 0.0, None, 1000),
        ManifestEntry("4", 0.0, None, 200),
    ]
    names, classes = Manifest("x", entries, domain_names={1000: "Plant"}).scene_classes()
    assert names == ["200", "Plant", "zoo", "all"] and classes == [3, 2, 1, 0]


def test_dataset_of_a_wrong_root_or_a_wrong_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="image root"):
        small().to_dataset(tmp_path / "absent")
    manifest = small()
    manifest.entries.append(ManifestEntry("/etc/passwd", 1.0))
    with pytest.raises(ManifestError, match="absolute"):
        manifest.to_dataset(tmp_path)
