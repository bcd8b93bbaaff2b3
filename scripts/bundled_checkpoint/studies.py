"""The four studies of opinions: their images, their scores, and what separates the images of a study."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from views import Pixels, Views, cut

from sind_hf.data.synthetic import keyed_generator
from sind_hf.image_processing_sind import load_image

STUDIES = ("video_codec_mos", "blur_jpeg_acr", "underwater_mos", "agiqa3k")
#: Local views per image after the centered one: small studies are seen more often.
FRAGMENTS = {"video_codec_mos": 6, "blur_jpeg_acr": 6, "underwater_mos": 6, "agiqa3k": 2}


@dataclass(frozen=True)
class Rated:
    """A rated image.

    Attributes:
        image: File below the study's folder.
        score: Mean opinion score, higher is better.
        group: Images that must not be separated when some are held out: a scene, a generator, or the image alone.
    """

    image: str
    score: float
    group: str


def read_study(folder: Path) -> list[Rated]:
    """Return the rated images of a study, from `scores.csv` or from the official download of AGIQA-3K."""
    if not (folder / "AGIQA-3K").is_dir():
        with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
            return [
                Rated(row["image"], float(row["mos"]), row.get("scene") or row["image"])
                for row in csv.DictReader(file)
            ]
    root = folder / "AGIQA-3K"
    files = {path.name: path.relative_to(folder).as_posix() for path in root.rglob("*.jpg")}
    with (root / "data.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Rated(files[row["name"]], float(row["mos_quality"]), row["name"].split("_")[0]) for row in rows]


class Study(Views):
    """A study whose views were cut by `prepare_study`.

    Attributes:
        groups: Group of each image, see `Rated`.
    """

    def __init__(self, folder: Path) -> None:
        rated = [Rated(**row) for row in json.loads((folder / "rows.json").read_text())]
        self.images = [each.image for each in rated]
        self.groups = np.array([each.group for each in rated])
        whole, local = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("globals", "locals"))
        super().__init__(whole, local, np.array([each.score for each in rated]))


def prepare_study(folder: Path, output: Path, view_size: int = 168, workers: int = 1) -> None:
    """Cut the views of all images of a study, unless that was done before."""
    if (output / "rows.json").is_file():
        return
    output.mkdir(parents=True, exist_ok=True)
    rated, count = read_study(folder), FRAGMENTS.get(folder.name, 2)
    shapes = {"globals": (3, 8 * view_size // 7, 8 * view_size // 7), "locals": (count + 1, 3, view_size, view_size)}
    whole, local = (
        np.lib.format.open_memmap(output / f"{name}.npy", "w+", np.uint8, (len(rated), *shape))
        for name, shape in shapes.items()
    )
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_cut_file, folder / each.image, each.image, view_size, count) for each in rated]
        for index, job in enumerate(jobs):
            whole[index], local[index] = job.result()
    (output / "rows.json").write_text(json.dumps([asdict(each) for each in rated]))


def _cut_file(path: Path, key: str, view_size: int, count: int) -> tuple[Pixels, Pixels]:
    return cut(load_image(path), view_size, count, keyed_generator("study views", key))
