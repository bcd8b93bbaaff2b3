"""Tests of label files and tables that are not what they seem: each is refused by name, at a bounded cost."""

from __future__ import annotations

import json
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from sind_hf.data.importing import tables
from sind_hf.data.importing.tables import read_table
from sind_hf.data.manifests.validation import ManifestError
from sind_hf.data.readers import labels
from sind_hf.data.readers.labels import csv_table, mat_arrays, score_list, xlsx_table
from sind_hf.data.readers.reader import LabelFileError
from sind_hf.experiments.config import load_config
from sind_hf.files import read_text

READERS: dict[str, Callable[[Path], Any]] = {
    "xlsx": lambda path: xlsx_table(path, ["image", "mos"]),
    "csv": lambda path: csv_table(path, ["image", "mos"]),
    "txt": score_list,
    "mat": lambda path: mat_arrays(path, "mos"),
}


def assert_refused(kind: str, path: Path, *words: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LabelFileError) as error:
        READERS[kind](path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 600
    for word in words:
        assert word in message, message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("kind", READERS)
def test_pipes_and_devices_are_refused_unopened(kind: str, tmp_path: Path) -> None:
    pipe, device = tmp_path / f"labels.{kind}", tmp_path / f"zero.{kind}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    assert_refused(kind, pipe, "it is a named pipe; only regular files are read")
    assert_refused(kind, device, "it is a device")
    with pytest.raises(OSError, match="named pipe"):
        read_text(pipe)
    with pytest.raises(ValueError, match="named pipe"):
        load_config(pipe)


@pytest.mark.parametrize("kind", READERS)
def test_large_files_are_refused_unread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"labels.{kind}"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert_refused(kind, path, "1,099,511,627,776 bytes")


def workbook(path: Path, **parts: bytes) -> Path:
    """Write a workbook with two rows, some of whose parts are replaced."""
    book = openpyxl.Workbook()
    book.active.append(["image", "mos"])
    book.active.append(["a.png", 3.5])
    book.save(path.with_suffix(".whole"))
    names = {"sheet": "xl/worksheets/sheet1.xml", "styles": "xl/styles.xml", "strings": "xl/sharedStrings.xml"}
    names |= {"book": "xl/workbook.xml", "types": "[Content_Types].xml"}
    replaced = {names[part]: data for part, data in parts.items()}
    with (
        zipfile.ZipFile(path.with_suffix(".whole")) as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in whole.namelist():
            archive.writestr(name, replaced.get(name, whole.read(name)))
    return path


SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


def test_workbooks_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "labels.xlsx")
    assert xlsx_table(path, ["image", "mos"]) == [{"image": "a.png", "mos": 3.5}]
    assert_refused("xlsx", workbook(path, sheet=SHEET + bytes(100_000_000)), "sheet1.xml unpacks to 100,0")
    hidden = workbook(path)
    with zipfile.ZipFile(hidden, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/part", bytes(3_000_000))  # a part of any name may be parsed as the workbook
    assert_refused("xlsx", hidden, "xl/part unpacks to 3,0")
    assert_refused("xlsx", workbook(path, styles=b"<styleSheet>" + b"<xf/>" * 10**6), "styles.xml unpacks to 5,0")
    monkeypatch.setattr(labels, "MOST_ROWS", 1000)
    far = SHEET + b'<row r="2000000000"><c r="A2000000000"><v>1</v></c></row></sheetData></worksheet>'
    assert_refused("xlsx", workbook(path, sheet=far), "more than 1,000 rows")
    monkeypatch.setattr(labels, "MOST_CELLS", 5000)
    wide = SHEET + b'<row r="1"><c r="ZZZ1"><v>1</v></c></row></sheetData></worksheet>'
    assert_refused("xlsx", workbook(path, sheet=wide), "or 5,000 cells")


@pytest.mark.parametrize("part", ["sheet", "styles", "strings", "book", "types"])
@pytest.mark.parametrize("data", [b"", b"<a", b"<a/>", b"\xff\xfe<", SHEET + b'<row r="x"><c r="1"><v>z'])
def test_damaged_workbooks_are_named(part: str, data: bytes, tmp_path: Path) -> None:
    path = workbook(tmp_path / "labels.xlsx", **{part: data})
    try:
        xlsx_table(path, ["image", "mos"])
    except LabelFileError as error:
        assert str(error).startswith(f"{path}: ")


def test_matlab_files_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "labels.mat"
    savemat(path, {"mos": np.arange(3.0)}, do_compression=True)
    (values,) = mat_arrays(path, "mos")
    assert values.tolist() == [0, 1, 2]
    head = path.read_bytes()[:128]
    packed = zlib.compress(struct.pack("<II", 14, 10**8) + bytes(10**8))
    path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    assert_refused("mat", path, "unpacks to more than 67,108,864 bytes")


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_matlab_files_are_named(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "labels.mat"
    cells = np.array(["a.png", "b.png"], dtype=object)
    savemat(path, {"mos": np.arange(3.0), "names": cells}, do_compression=compressed)
    scores, names = mat_arrays(path, "mos", "names")
    assert scores.tolist() == [0, 1, 2] and names.tolist() == ["a.png", "b.png"]
    whole = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for place in range(128, len(whole), 4):
        path.write_bytes(whole[:place] + b"\xff\xff\xff\x7f" + whole[place + 4 :])
        try:
            mat_arrays(path, "mos", "names")
        except LabelFileError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; arrays of 16 GB are declared


def test_text_of_endless_lines_and_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,mos\n" + "," * 20_000_000)
    for kind in ("csv", "txt"):
        assert_refused(kind, path, "a line has more than 16,777,216 characters")
    path.write_text("image,mos\n" + "a.png,1\n" * 20)
    monkeypatch.setattr(labels, "MOST_ROWS", 20)
    for kind in ("csv", "txt"):
        assert_refused(kind, path, "more than 20 rows")


def test_tables_are_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    for name, text in (("a.csv", "image,mos\na.png,1\n"), ("a.jsonl", '{"image": "a.png", "mos": 1}\n')):
        (tmp_path / name).write_text(text + "x" * 200)
        rows = list(read_table(tmp_path / name).rows)
        assert "more than 100 characters" in str(rows[1][1]) and rows[0][1]["image"] == "a.png"  # type: ignore[index]
    monkeypatch.setattr(tables, "MOST_JSON", 100)
    (tmp_path / "a.json").write_text("[" + "[]," * 100 + "[]]")
    with pytest.raises(ManifestError, match="more than 100 bytes; save the list as JSON Lines"):
        read_table(tmp_path / "a.json")


def test_parquet_values_that_stand_for_more_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary repeats one large value in every row; a list column repeats one small value in one row."""
    path = tmp_path / "a.parquet"
    columns = {"image": [b"x" * 2**19] * 64, "mos": [1.0] * 64, "embedding": [[0] * 1000] * 64}
    pq.write_table(pa.table(columns), path)
    table = read_table(path)
    assert table.columns == ["image", "mos"]
    assert [sorted(row) for _, row in table.rows] == [["image", "mos"]] * 64  # type: ignore[type-var]
    sizes: list[int] = []
    iterate = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda file, size, **named: sizes.append(size) or iterate(file, size, **named)
    )
    monkeypatch.setattr(tables, "MOST_BATCH", 2**21)
    assert len(list(read_table(path).rows)) == 64
    assert 1 <= sizes[0] <= 4
    monkeypatch.setattr(tables, "MOST_ROW_GROUP", 2**19)
    with pytest.raises(ManifestError, match=r"a row group unpacks to 5\d\d,\d\d\d bytes; write smaller row groups"):
        read_table(path)


def test_tables_of_endless_rows_or_columns_are_cut_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 20)
    monkeypatch.setattr(tables, "MOST_COLUMNS", 20)
    rows, wide = [{"image": "a.png", "mos": 1.0}] * 30, {f"c{number}": 1.0 for number in range(30)}
    for suffix in (".csv", ".jsonl", ".json", ".parquet"):
        for name, content in (("long", rows), ("wide", [{**rows[0], **wide}])):
            path = tmp_path / f"{name}{suffix}"
            lines = [json.dumps(row) for row in content]
            if suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(content), path)
            elif suffix == ".csv":
                path.write_text(
                    "\n".join([",".join(content[0]), *(",".join(map(str, row.values())) for row in content)])
                )
            else:
                path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
        read = list(read_table(tmp_path / f"long{suffix}").rows)
        assert len(read) == 21 and read[-1][1] == "the table has more than 20 rows; the rest is not read"
        with pytest.raises(ManifestError, match="more than 20 columns"):
            read_table(tmp_path / f"wide{suffix}")
