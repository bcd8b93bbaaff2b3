from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from sind_hf.experiments.report import (
    METHODS,
    fold_rows,
    latex,
    markdown,
    published_result,
    summary_rows,
    write_report,
)

SIX = ["koniq10k", "livec", "bid", "kadid10k", "csiq", "live"]


def record(fold="1", test="spaq", srcc=0.8, plcc=0.9, protocol="leave-one-out", trained_on=("spaq",), seed=0, **more):
    bounds = {"srcc": [srcc - 0.02, srcc + 0.01], "plcc": [plcc - 0.02, plcc + 0.01], "srcc_plcc": [0.7, 0.95]}
    return {
        "name": "a_run & more",
        "protocol": protocol,
        "fold": fold,
        "seed": seed,
        "trained_on": list(trained_on),
        "test_images": {test: 50},
        "metrics": {test: {"srcc": srcc, "plcc": plcc, "krcc": 0.6, "rmse": 8.0, "runtime": 3.0}},
        "tests": {test: {"interval": bounds}},
        "best_epoch_chosen_on_test_set": {test: {"epoch": 3.0, "srcc": srcc + 0.05}},
    } | more


def rows_by_metric(records):
    return {row["metric"]: row for row in summary_rows(records)}


def test_summary_over_folds():
    values = [(0.80, 0.82), (0.90, 0.88), (0.70, 0.75), (0.86, 0.90)]
    rows = rows_by_metric([record(str(i), srcc=srcc, plcc=plcc) for i, (srcc, plcc) in enumerate(values)])
    srcc = rows["srcc"]
    assert srcc["folds"] == 4
    assert srcc["mean"] == pytest.approx(0.815) and srcc["median"] == pytest.approx(0.83)
    assert srcc["std"] == pytest.approx(np.std([0.8, 0.9, 0.7, 0.86], ddof=1))
    assert 0.70 <= srcc["low"] < 0.815 < srcc["high"] <= 0.90
    assert rows["srcc_plcc"]["mean"] == pytest.approx(np.mean(values))
    assert (srcc["published"], srcc["published_statistic"]) == (0.861, "mean")
    assert rows["plcc"]["published"] == 0.889
    assert rows["krcc"]["published"] is None


def test_one_fold_has_the_interval_over_its_images():
    rows = rows_by_metric([record(protocol="cross-set", test="livec")])
    assert (rows["srcc"]["low"], rows["srcc"]["high"]) == pytest.approx((0.78, 0.81))
    assert rows["srcc"]["std"] is None
    assert (rows["srcc_plcc"]["published"], rows["srcc_plcc"]["published_statistic"]) == (0.852, "value")
    assert rows["krcc"]["low"] is None


def test_undefined_correlations_are_left_out_and_said():
    records = [record("1"), record("2", srcc=0.6), record("3")]
    records[2]["metrics"]["spaq"]["srcc"] = None
    row = rows_by_metric(records)["srcc"]
    assert row["folds"] == 2 and row["mean"] == pytest.approx(0.7)
    assert "not defined" in markdown(records)


def test_published_only_where_protocol_and_sets_match():
    assert published_result("random-split", list(reversed(SIX)), "bid", "srcc").value == 0.901
    assert published_result("random-split", SIX, "bid", "srcc").statistic == "median"
    assert published_result("random-split", SIX, "bid", "plcc", "LIQE").value == 0.900
    assert published_result("random-split", ["bid"], "bid", "srcc") is None
    assert published_result("cross-set", ["koniq10k"], "cid2013", "srcc_plcc").value == 0.854
    assert published_result("cross-set", ["spaq"], "live", "srcc_plcc").value == 0.911
    assert published_result("cross-set", ["spaq", "koniq10k"], "live", "srcc_plcc") is None
    assert published_result("leave-one-out", ["para"], "para", "plcc").value == 0.940
    assert published_result(None, ["para"], "para", "plcc") is None
    for method in METHODS["random-split"]:
        assert all(published_result("random-split", SIX, name, "srcc", method) for name in SIX)


def test_files(tmp_path):
    records = [record("test_for_100_Animal"), record("test_for_101_City", srcc=0.7)]
    written = write_report(records, tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["summary"] == summary_rows(records) and document["folds"] == fold_rows(records)
    with (tmp_path / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["test_for_100_Animal", "test_for_101_City"]
    assert float(rows[1]["srcc"]) == 0.7 and float(rows[1]["srcc_low"]) == pytest.approx(0.68)
    assert rows[0]["best_epoch_chosen_on_test_set"] == "3.0"
    with (tmp_path / "report_summary.csv").open() as file:
        assert float(next(csv.DictReader(file))["mean"]) == pytest.approx(0.75)
    assert write_report([], tmp_path) == []


def test_markdown_is_a_table_for_people():
    text = markdown([record("test_for_100_Animal"), record("test_for_101_City", srcc=0.7)])
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables[:5]}) == 1
    assert "| spaq | SRCC | 2 | 0.750 | 0.750 | 0.071 | 0.700 to 0.800 | 0.861 (mean) |" in tables
    assert "chosen on that test set. It is not a result" in text
    seeds = markdown([record(seed=0), record(seed=1)])
    assert "| fold | seed |" in seeds and "| fold | seed |" not in text


def test_latex_is_escaped():
    text = latex([record(test="my_set 100%", protocol="cross-set")])
    assert r"my\_set 100\%" in text and r"95 \% interval" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {7}
    assert text.startswith(r"\begin{tabular}{llrrrrrr}") and text.endswith("\\end{tabular}\n")
