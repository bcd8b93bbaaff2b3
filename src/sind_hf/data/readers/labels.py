"""The kinds of label files that datasets come with: spreadsheets, delimited text, name-score lists, MATLAB arrays."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from ..tables import squeeze
from .download import LabelFileError

Row = dict[str, Any]


def xlsx_table(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Read the named columns of a spreadsheet.

    Args:
        path: An .xlsx file.
        columns: Columns to read; matched without regard to case, spaces and punctuation.
        sheet: Sheet name; the first sheet by default.

    Returns:
        One dictionary per row below the header, keyed by the names in `columns`.

    Raises:
        LabelFileError: No such sheet, or no row that names all the columns.
        ImportError: openpyxl is not installed.
    """
    return list(table(xlsx_rows(path, sheet), columns, path))


def xlsx_rows(path: Path, sheet: str | None = None) -> Iterator[Sequence[Any]]:
    """Cells of every row of a sheet, the first one by default; see `xlsx_table`."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise ImportError(f'reading {path.name} needs openpyxl: pip install "sind-hf[data]"') from error
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, BadZipFile, OSError, KeyError, ValueError) as error:
        raise LabelFileError(f"{path}: not a readable .xlsx file ({error})") from error
    try:
        names = {squeeze(name): name for name in workbook.sheetnames}
        if sheet is not None and squeeze(sheet) not in names:
            raise LabelFileError(f"{path}: no sheet {sheet!r}; it has {', '.join(workbook.sheetnames)}")
        worksheet = workbook[names[squeeze(sheet)] if sheet is not None else workbook.sheetnames[0]]
        worksheet.reset_dimensions()  # the size that a file declares is often wrong, and would cut the table
        yield from worksheet.iter_rows(values_only=True)
    finally:
        workbook.close()


def csv_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[Row]:
    """Read the named columns of a delimited text file; see `xlsx_table`."""
    return list(table(csv_rows(path, delimiter), columns, path, ragged=False))


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Fields of every line of a delimited text file.

    Raises:
        LabelFileError: The file is no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.reader(file, delimiter=delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelFileError(f"{path}: not a readable text table ({error})") from error


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], path: Path, *, ragged: bool = True) -> Iterator[Row]:
    """Turn rows of cells into dictionaries, from the first row on that names all the columns.

    Args:
        rows: Rows of cells.
        columns: Columns to pick.
        path: File that the rows come from, for messages.
        ragged: Rows may end early, as those of spreadsheets do; in a text file that is the mark of a cut download.

    Raises:
        LabelFileError: No row names all the columns, or a row of a text file ends early.
    """
    first: Sequence[Any] | None = None
    index: list[int] = []
    for row_number, row in enumerate(rows, start=1):
        if not index:
            first = row if first is None else first
            header = [squeeze(cell) for cell in row]
            if all(squeeze(column) in header for column in columns):
                index = [header.index(squeeze(column)) for column in columns]
            continue
        if row and not ragged and len(row) <= max(index):
            raise LabelFileError(f"{path}, row {row_number}: ends after {len(row)} fields; download the file again")
        cells = [row[i] if i < len(row) else None for i in index]
        # A blank behind a name would keep it from matching the same name in another file.
        cells = [cell.strip() if isinstance(cell, str) else cell for cell in cells]
        if cells[0] is not None and str(cells[0]).strip():  # spreadsheets end in rows that only look empty
            yield dict(zip(columns, cells, strict=True))
    if not index:
        missing = [column for column in columns if squeeze(column) not in [squeeze(cell) for cell in first or ()]]
        names = ", ".join(str(cell) for cell in first or () if cell is not None) or "none"
        raise LabelFileError(f"{path}: no column {', '.join(map(repr, missing))}; its columns are {names}")


def score_list(path: Path, order: Literal["name score", "score name"] = "name score") -> list[tuple[str, float]]:
    """Read a text file with an image name and a score on every line, separated by a comma, spaces or tabs.

    Raises:
        LabelFileError: A line has no two fields, or the file is no text.
    """
    pairs = []
    for line_number, line in enumerate(text_lines(path), start=1):
        fields = re.split(r"\s*,\s*|\s+", line.strip())
        if fields == [""]:
            continue
        if len(fields) < 2:
            raise LabelFileError(f"{path}, line {line_number}: expected {order!r}, got {line!r}")
        name, score = fields[:2] if order == "name score" else fields[1::-1]
        pairs.append((name, number(score)))
    return pairs


def text_lines(path: Path) -> list[str]:
    """Lines of a text file.

    Raises:
        LabelFileError: The file is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LabelFileError(f"{path}: not a text file ({error})") from error


def mat_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Read variables of a MATLAB file as flat arrays; cells of text become strings.

    Raises:
        LabelFileError: The file is not readable or lacks a variable.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        variables = loadmat(path)
    except (MatReadError, ValueError, TypeError, NotImplementedError) as error:
        raise LabelFileError(f"{path}: not a readable MATLAB file ({error})") from error
    for name in names:
        if name not in variables:
            present = ", ".join(key for key in variables if not key.startswith("__")) or "none"
            raise LabelFileError(f"{path}: no variable {name!r}; its variables are {present}")
    return tuple(_flat(variables[name]) for name in names)


def _flat(array: np.ndarray) -> np.ndarray:
    flat = array.ravel()
    if flat.dtype == object:
        flat = np.array([str(np.asarray(cell).ravel()[0]) if np.size(cell) else "" for cell in flat])
    return flat


def number(value: Any) -> float:
    """A score as a float; NaN for what is no number, so that its image is reported and the others go on."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
