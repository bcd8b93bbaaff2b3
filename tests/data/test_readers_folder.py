"""Reader of an own study."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from helpers import raw_trees
from sind_hf.data.manifests.manifest import ManifestEntry, ScoreInfo
from sind_hf.data.readers import LabelFileError, build

ROWS: list[dict[str, Any]] = [
    {"file_name": "images/b.jpg", "MOS": 3.5, "scene": "street", "note": "x"},
    {"file_name": "images/a.jpg", "MOS": 1, "scene": "garden", "note": ""},
    {"file_name": "images/c.jpg", "MOS": 4.25, "scene": None, "note": "y"},
]
ENTRIES = [
    ManifestEntry("study/images/b.jpg", 3.5, "street", 2001),
    ManifestEntry("study/images/a.jpg", 1.0, "garden", 2000),
    ManifestEntry("study/images/c.jpg", 4.25),
]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        raw_trees.write_csv(
            path, [list(rows[0]), *(list(row.values()) for row in rows)], "\t" if path.suffix == ".tsv" else ","
        )


@pytest.mark.parametrize("table", ["scores.csv", "scores.tsv", "scores.jsonl", "scores.parquet"])
def test_every_kind_of_table(tmp_path: Path, table: str) -> None:
    write_table(tmp_path / "study" / table, ROWS)
    raw_trees.write_images(tmp_path / "study", [row["file_name"] for row in ROWS])
    result = build("folder", tmp_path / "study", score_range="1,5")
    assert result.manifest.entries == ENTRIES
    assert result.manifest.dataset == "study"
    assert result.manifest.score == ScoreInfo("MOS", (1.0, 5.0), True)
    assert result.manifest.domain_names == {2000: "garden", 2001: "street"}
    assert not result.manifest.reference_based
    assert result.manifest.source == table
    assert result.image_root == tmp_path
    assert result.manifest.validate(tmp_path) == []


def test_named_columns_and_options(tmp_path: Path) -> None:
    rows = [
        {"pic": "a.jpg", "dmos": "12.5", "mos": 99, "from": "r1.jpg", "how": "jpeg", "place": 7},
        {"pic": "b.jpg", "dmos": "80", "mos": 99, "from": "r1.jpg", "how": "blur", "place": 8},
    ]
    write_table(tmp_path / "labels/all.csv", rows)
    write_table(tmp_path / "another.csv", rows)
    raw_trees.write_images(tmp_path, ["labels/a.jpg", "b.jpg"])
    result = build(
        "folder",
        tmp_path,
        table="labels/all.csv",
        dataset="my-study",
        image="pic",
        score="dmos",
        scene="place",
        reference="from",
        distortion="how",
        lower_is_better="true",
        first_domain_id="5000",
    )
    name = tmp_path.name
    assert result.manifest.entries == [
        ManifestEntry(f"{name}/labels/a.jpg", 12.5, "7", 5000, "r1.jpg", "jpeg"),  # beside the table
        ManifestEntry(f"{name}/b.jpg", 80.0, "8", 5001, "r1.jpg", "blur"),
    ]
    assert result.manifest.dataset == "my-study"
    assert result.manifest.score == ScoreInfo("dmos", None, False)
    assert result.manifest.reference_based
    assert "the scale of the scores is not known: give option score_range, like 1,5" in result.notes


def test_bad_rows_are_named_and_the_others_kept(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "score": 3},
        {"image": "b.jpg", "score": "n/a"},
        {"image": "../outside.jpg", "score": 3},
        {"image": "./a.jpg", "score": 4},
        {"image": "gone.jpg", "score": 4},
        {"image": "c.jpg", "score": 2},
    ]
    write_table(tmp_path / "study/scores.csv", rows)
    with (tmp_path / "study/scores.csv").open("a") as file:
        file.write("d.jpg\n")
    raw_trees.write_images(tmp_path / "study", ["a.jpg", "b.jpg", "../outside.jpg", "c.jpg"])
    result = build("folder", tmp_path / "study")
    assert [entry.image for entry in result.manifest.entries] == ["study/a.jpg", "study/c.jpg"]
    reasons = dict(result.unreadable)
    assert list(reasons) == ["row 3", "row 4", "row 5", "row 6", "row 8"]  # the header is row 1
    assert reasons["row 3"] == "score is 'n/a', which is not a number"
    assert "'..'" in reasons["row 4"]
    assert reasons["row 5"] == "image 'a.jpg' is already in row 2"
    assert reasons["row 6"] == "image 'gone.jpg': there is no such file in the image root"
    assert reasons["row 8"] == "the row has 1 cells, the header 2"
    assert not result.complete


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "there is no table of scores in the folder"),
        ({"a.csv": "image,score\n", "b.csv": "image,score\n"}, {}, "several tables .a.csv, b.csv.; name the one"),
        ({"a.csv": "image,score\n"}, {"table": "c.csv"}, "c.csv: there is no such file"),
        ({"a.txt": "image,score\n"}, {"table": "a.txt"}, "type '.txt' cannot be imported; use one of"),
        ({"a.csv": "image,opinion\nx.jpg,1\n"}, {}, "a.csv: no column looks like the score; name it, of 'image'"),
        ({"a.csv": "image,score\nx.jpg,1\n"}, {"scene": "place"}, "a.csv: there is no column 'place' for the scene"),
        ({"a.jsonl": '{"image": "x.jpg"\n'}, {}, "a.jsonl: no line is a JSON object"),
        ({"a.parquet": "no"}, {}, "not a Parquet table"),
        ({"a.csv": "image,score\nx.jpg,1\n"}, {"score_range": "5,1"}, "score_range must be two numbers, lowest first"),
        ({"a.csv": "image,score\nx.jpg,1\n"}, {"first_domain_id": "x"}, "must be a whole number; got 'x'"),
        ({"a.csv": "image,score\nx.jpg,1\n"}, {"colour": "red"}, "unknown option colour; its options are table"),
        ({"a.csv": "image,score\n"}, {}, "none of its 0 rows can be used"),
        ({"a.csv": "image,score\nx.jpg,1\n"}, {}, "none of its 1 rows can be used; the first is row 2: image 'x.jpg'"),
    ],
)
def test_messages(tmp_path: Path, files: dict[str, str], options: dict[str, str], message: str) -> None:
    raw_trees.plain(tmp_path, files, [])
    with pytest.raises(ValueError, match=message) as caught:
        build("folder", tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_laboratory_scores_of_a_real_study(shared: Path) -> None:
    folder = shared / "data/video_codec_mos"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    result = build("folder", folder, score_range="1,5")
    assert result.complete
    assert len(result.manifest) == 324
    assert len(result.manifest.domain_names) == 38
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(entry.image, entry.score, entry.scene) for entry in result.manifest.entries] == [
        (f"video_codec_mos/{row['image']}", float(row["mos"]), row["scene"]) for row in rows
    ]
    ids = {entry.scene: entry.domain_id for entry in result.manifest.entries}
    assert sorted(ids.values()) == list(range(2000, 2038))
    assert sorted(ids, key=ids.__getitem__) == sorted(ids)


def test_label_error_is_a_value_error() -> None:
    assert issubclass(LabelFileError, ValueError)
