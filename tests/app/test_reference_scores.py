"""Percentiles among the scores of other images."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sind_hf.app.reference import ReferenceScores


def test_a_percentile_counts_lower_scores_and_half_of_equal_ones():
    reference = ReferenceScores([3.0, 1.0, 2.0, 2.0])
    assert [reference.percentile(score) for score in (0.5, 1.0, 1.5, 2.0, 3.0, 9.0)] == [0, 12.5, 25, 50, 87.5, 100]


def test_an_image_of_the_reference_has_the_same_percentile_in_any_batch():
    """Sums in another order change the last digits of a score; its percentile must not jump."""
    reference = ReferenceScores([-71.05284, -46.8, 62.3])
    assert [reference.percentile(score) for score in (-71.0529, -71.05284, -71.0528)] == [pytest.approx(100 / 6)] * 3
    assert reference.percentile(-71.03) == pytest.approx(100 / 3)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_of_the_score_command_are_read(tmp_path, kind):
    rows = [
        {"image": "a.jpg", "score": 2.5, "error": None},
        {"image": "b.jpg", "score": None, "error": "b.jpg: is empty"},
        {"image": "c.jpg", "score": -1.0, "error": None},
    ]
    path = tmp_path / f"scores.{kind}"
    if kind == "csv":
        path.write_text("\ufeffimage,score,error\na.jpg,2.5,\nb.jpg,,b.jpg: is empty\nc.jpg,-1.0,\n", encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    reference = ReferenceScores.load(path)
    assert len(reference) == 2 and reference.percentile(0) == 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,quality\na.jpg,1\n", "no column 'score'"),
        ("image,score\na.jpg,good\n", "row 2: the score 'good' is not a number"),
        ("image,score\na.jpg,nan\n", "row 2: the score 'nan' is not a number"),
        ("image,score\na.jpg,\n", "holds no scores"),
    ],
)
def test_an_unusable_file_is_refused_in_words(tmp_path, text, expected):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=expected):
        ReferenceScores.load(tmp_path / "scores.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.csv"):
        ReferenceScores.load(tmp_path / "nowhere.csv")


def test_scores_beside_a_checkpoint_are_read_for_its_views_alone(tmp_path):
    document = {"views": "center", "scores": {"clean": [3.0, 4.0], "distorted": [1.0]}}
    (tmp_path / "reference_scores.json").write_text(json.dumps(document))
    reference = ReferenceScores.of_checkpoint(str(tmp_path), "center")
    assert reference is not None and reference.scores == [1.0, 3.0, 4.0]
    assert ReferenceScores.of_checkpoint(str(tmp_path), "nine") is None
    (tmp_path / "reference_scores.csv").write_text("image,score,error\na.jpg,7,\n")
    table = ReferenceScores.of_checkpoint(str(tmp_path), "center")
    assert table is not None and table.scores == [7.0]


@pytest.mark.parametrize("text", ["[]", "{", '{"views": "center"}', '{"views": "center", "scores": {"a": [NaN]}}'])
def test_a_damaged_file_beside_a_checkpoint_is_named(tmp_path, text):
    (tmp_path / "reference_scores.json").write_text(text)
    with pytest.raises(ValueError, match=r"reference_scores\.json: not a file of reference scores"):
        ReferenceScores.of_checkpoint(str(tmp_path), "center")


def test_quantiles_divide_the_reference():
    assert [ReferenceScores([4, 1, 3, 2, 5]).quantile(share) for share in (0, 0.25, 0.5, 1)] == [1, 2, 3, 5]
