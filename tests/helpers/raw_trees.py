"""Datasets in the layout of their official archives, with label files of the real kinds and tiny images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from PIL import Image
from scipy.io import savemat

SPAQ_SCENES = (
    "Animal",
    "Cityscape",
    "Human",
    "Indoor scene",
    "Landscape",
    "Night scene",
    "Plant",
    "Still-life",
    "Others",
)
LIVE_COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Write one real image per file type and link it to all the names (also of thousands, in a blink)."""
    originals: dict[str, Path] = {}
    made: set[Path] = set()
    for name in names:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        suffix = path.suffix.lower()
        if suffix not in originals:
            Image.new("RGB", (8, 6), (200, 40, 10)).save(path, {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP"}[suffix])
            originals[suffix] = path
        else:
            os.link(originals[suffix], path)


def write_xlsx(path: Path, rows: Iterable[Sequence[Any]], sheet: str = "Sheet1", before: Sequence[str] = ()) -> None:
    """Write a workbook; `before` names sheets that come first, as in some of the official files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook = Workbook(write_only=True)
    for name in before:
        workbook.create_sheet(name).append(["this sheet is not the one"])
    worksheet = workbook.create_sheet(sheet)
    for row in rows:
        worksheet.append([_exact(worksheet, value) for value in row])
    workbook.save(path)


def _exact(worksheet: Any, value: Any) -> Any:
    """A cell with all 17 digits of a float, as Excel saves it; openpyxl itself writes 16."""
    if not isinstance(value, float):
        return value
    cell = WriteOnlyCell(worksheet, repr(value))
    cell.data_type = "n"
    return cell


def write_csv(
    path: Path, rows: Iterable[Sequence[Any]], delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(rows)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cells(texts: Sequence[str]) -> np.ndarray:
    """A MATLAB cell array of strings."""
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def spaq(root: Path, images: Sequence[tuple[str, float, Sequence[str]]], folder: str = "SPAQ") -> None:
    """(name, MOS, scenes marked present)"""
    annotations = root / folder / "Annotations"
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    write_xlsx(
        annotations / "MOS and Image attribute scores.xlsx",
        [header, *([name, mos, 1, 2, 3, 4, 5] for name, mos, _ in images)],
    )
    write_xlsx(
        annotations / "Scene category labels.xlsx",
        [
            ["Image name", *SPAQ_SCENES],
            *([name, *(int(scene in scenes) for scene in SPAQ_SCENES)] for name, _, scenes in images),
        ],
    )
    write_images(root / folder / "TestImage", (name for name, _, _ in images))


def koniq10k(root: Path, images: Sequence[tuple[str, float]], folder: str = "koniq10k") -> None:
    header = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore"]
    write_csv(
        root / folder / "koniq10k_scores_and_distributions.csv",
        [header, *([name, 0, 0, 25, 73, 7, 105, 3.8, 0.5, repr(score)] for name, score in images)],
        quoting=csv.QUOTE_ALL,
    )
    write_images(root / folder / "1024x768", (name for name, _ in images))


def livec(
    root: Path, images: Sequence[tuple[str, float]], folder: str = "ChallengeDB_release", *, as_archived: bool = True
) -> None:
    """The images t1.bmp … t7.bmp lie in a folder of their own in the archive, but not in the published manifests."""
    data = root / folder / "Data"
    data.mkdir(parents=True)
    savemat(data / "AllImages_release.mat", {"AllImages_release": cells([name for name, _ in images]).reshape(-1, 1)})
    savemat(data / "AllMOS_release.mat", {"AllMOS_release": np.array([[score for _, score in images]])})
    names = [f"trainingImages/{name}" if as_archived and name.startswith("t") else name for name, _ in images]
    write_images(root / folder / "Images", names)


def bid(root: Path, images: Sequence[tuple[int, float]], folder: str = "BID") -> None:
    write_xlsx(root / folder / "DatabaseGrades.xlsx", [["Image Number", "Average Subjective Grade"], *images])
    write_images(root / folder, (f"DatabaseImage{number:04d}.JPG" for number, _ in images))


def cid2013(root: Path, images: Sequence[tuple[str, float]], *, sorted_in_sets: bool) -> None:
    """(Source_ID, realigned MOS); `sorted_in_sets` is the archive's layout, else one folder as in the manifests."""
    write_xlsx(
        root / "CID2013" / "CID2013 data - version 12112014.xlsx",
        [
            ["Source_ID", "Image set specific  MOS", "Realigned MOS", "Sharpness"],
            *([name, 50.0, score, 1.0] for name, score in images),
        ],
        sheet="CID2013 MOS",
        before=["ReadMe"],
    )
    romans = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
    names = []
    for name, _ in images:
        _, image_set, cluster, _ = name.split("_")
        names.append(f"IS{romans[image_set]}/co{int(cluster[1:])}/{name}.jpg" if sorted_in_sets else f"{name}.jpg")
    write_images(root / "CID2013", names)


def live(
    root: Path,
    scores: Sequence[float],
    pristine: Sequence[bool],
    references: Sequence[str],
    folder: str = "databaserelease2",
    without: Sequence[str] = (),
) -> None:
    """All 982 entries in the order of the arrays; the images `without` are not written."""
    (root / folder).mkdir(parents=True)
    savemat(
        root / folder / "dmos_realigned.mat",
        {"dmos_new": np.array([scores]), "orgs": np.array([pristine], dtype=np.uint8), "dmos_std": np.ones((1, 982))},
    )
    savemat(root / folder / "refnames_all.mat", {"refnames_all": cells(references).reshape(1, -1)})
    names = [f"{kind}/img{index}.bmp" for kind, count in LIVE_COUNTS.items() for index in range(1, count + 1)]
    write_images(root / folder, (name for name in names if name not in without))


def eva(
    root: Path,
    images: Sequence[tuple[str, str, Sequence[int]]],
    folder: str = "EVA/eva-dataset-master",
) -> None:
    """(id, category, votes)"""
    data = root / folder / "data"
    write_csv(
        data / "image_content_category.csv",
        [["image_id", "category"], *([image_id, category] for image_id, category, _ in images)],
        quoting=csv.QUOTE_ALL,
    )
    write_csv(
        data / "votes_filtered.csv",
        [
            ["image_id", "user_id", "score", "difficulty", "visual"],
            *(
                [image_id, f"user{voter}", vote, 2, 3]
                for image_id, _, votes in images
                for voter, vote in enumerate(votes)
            ),
        ],
        delimiter="=",
    )
    write_images(
        root / folder / "images/EVA_category/EVA_category",
        (f"{category}/{image_id}.jpg" for image_id, category, _ in images),
    )


def votes_with_mean(mean: float) -> list[int]:
    """The fewest whole votes (at least 20) whose mean is exactly this number."""
    fraction = Fraction(mean).limit_denominator(100)
    times = -(-20 // fraction.denominator)
    count, total = fraction.denominator * times, fraction.numerator * times
    return [total // count + (voter < total % count) for voter in range(count)]


def giaa(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One of PARA's tables: session, name, semantic, aesthetic and quality means."""
    columns = ["sessionId", "imageName", "semantic", "aestheticScore_mean", "qualityScore_mean"]
    header = [*columns[:2], "aestheticScore_1.0", *columns[3:], "semantic"]
    write_csv(
        path,
        [header, *([row.get(column, 0) for column in header] for row in rows)],
    )


def plain(root: Path, texts: Mapping[str, str], images: Iterable[str]) -> None:
    """A dataset whose label files are text: the files with their text, and the images."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_images(root, images)
