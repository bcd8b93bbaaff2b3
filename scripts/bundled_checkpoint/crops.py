"""Stage 2: distorted crops of pristine photographs, labeled by full-reference indices.

Each photograph gives some crops: of the size of laboratory images, small, large, very smooth or gray, one in five on a
white or black canvas. Each crop gives a clean version, ladders (one kind of distortion at rising levels), and versions
with one or two distortions. Only their views are kept.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from distortions import DISTORTIONS
from full_reference import INDICES
from PIL import Image
from views import Pixels, Views, cut

from sind_hf.data.synthetic import keyed_generator
from sind_hf.image_processing_sind import load_image

#: Drawn more often than the others: what most images go through, and what laboratory studies consist of.
COMMON = (
    *("jpeg", "jpeg", "jpeg", "jpeg2000", "gaussian_blur", "white_noise", "fading", "enlargement", "double_jpeg"),
    *("webp", "avif", "video_like", "lens_blur", "downscaling", "high_iso_noise", "denoising"),
)
LADDERS = (
    *("jpeg", "jpeg", "jpeg2000", "gaussian_blur", "white_noise", "enlargement", "webp", "avif", "lens_blur"),
    *("motion_blur", "high_iso_noise", "downscaling", "fading", "impulse_noise", "high_frequency_noise"),
    *("color_noise", "denoising", "double_jpeg"),
)
_ASPECTS = (1.0, 4 / 3, 3 / 4, 1.5, 2 / 3, 16 / 9)  # width to height
_LOWEST, _HIGHEST = 0.15, 5.0  # levels of distortion
_BENT = 0.35  # label of an image whose shapes are bent most


@dataclass(frozen=True)
class CropSettings:
    """Which crops are made, the keys of `crops.yaml`.

    Attributes:
        crops: Crops per photograph.
        ladders: Ladders per crop.
        rungs: Levels per ladder.
        singles: Versions per crop with one distortion.
        doubles: Versions per crop with two distortions, one after the other.
        gray: Share of the crops that are made gray first.
        canvas: Share of the crops that are put on a white or black canvas.
        fragments: Local views per version.
        view_size: Side of the views in pixels.
        seed: Seed of every random choice.
    """

    crops: int = 2
    ladders: int = 2
    rungs: int = 4
    singles: int = 6
    doubles: int = 1
    gray: float = 0.08
    canvas: float = 0.22
    fragments: int = 2
    view_size: int = 168
    seed: int = 0


@dataclass(frozen=True)
class Version:
    """A version of a crop: its distortions, in order, each with its level, and the number of its ladder."""

    steps: tuple[tuple[str, float], ...] = ()
    ladder: int | None = None


@dataclass(frozen=True)
class Canvas:
    """A sheet of one color around an image."""

    size: tuple[int, int]
    place: tuple[int, int]
    color: tuple[int, ...]

    def around(self, image: Image.Image) -> Image.Image:
        """Put an image on the sheet."""
        sheet = Image.new("RGB", self.size, self.color)
        sheet.paste(image, self.place)
        return sheet

    def inside(self, sheet: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Cut the image out again."""
        return sheet.crop((*self.place, self.place[0] + size[0], self.place[1] + size[1]))


def make_crops(photographs: Mapping[str, Path], folder: Path, settings: CropSettings, workers: int = 1) -> None:
    """Make the versions of all photographs; those of finished photographs are kept.

    Writes, for each photograph, `<name>.globals.npy`, `<name>.locals.npy` and, last, `<name>.json`.

    Args:
        photographs: Files by name.
        folder: Where the crops of these settings are kept.
        settings: What to make.
        workers: Number of processes.

    Raises:
        ValueError: When the folder holds crops of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "settings"
    if record.is_file() and json.loads(record.read_text()) != asdict(settings):
        raise ValueError(f"{folder} holds crops of other settings: choose another folder, or delete it.")
    record.write_text(json.dumps(asdict(settings)))
    missing = {name: path for name, path in photographs.items() if not (folder / f"{name}.json").is_file()}
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_make_versions, name, path, settings, folder) for name, path in missing.items()]
        for done, job in enumerate(jobs, start=1):
            job.result()
            if done % 20 == 0 or done == len(jobs):
                print(f"crops of {done} of {len(jobs)} photographs", flush=True)


def plan_versions(settings: CropSettings, rng: np.random.Generator) -> Iterator[Version]:
    """Draw what is done to one crop."""
    yield Version()
    for ladder in range(settings.ladders):
        kind = _drawn(LADDERS, rng)
        highest = _HIGHEST if rng.random() < 0.6 else float(rng.uniform(2, _HIGHEST))
        for rung in range(settings.rungs):
            level = _LOWEST + (highest - _LOWEST) * (rung + rng.uniform(0.1, 0.9)) / settings.rungs
            yield Version(((kind, float(level)),), ladder)
    for _ in range(settings.singles):
        yield Version(((_drawn_kind(rng), float(rng.uniform(_LOWEST, _HIGHEST))),))
    for _ in range(settings.doubles):
        first, second = rng.uniform(0.3, 3.5, 2).tolist()
        yield Version(((_drawn_kind(rng), first), (_drawn_kind(rng), second)))


def _drawn(kinds: tuple[str, ...], rng: np.random.Generator) -> str:
    return kinds[int(rng.integers(len(kinds)))]


def _drawn_kind(rng: np.random.Generator) -> str:
    return _drawn(COMMON if rng.random() < 0.35 else tuple(DISTORTIONS), rng)


def _make_versions(name: str, path: Path, settings: CropSettings, folder: Path) -> None:
    photograph = load_image(path)
    rows: list[dict[str, Any]] = []
    whole: list[Pixels] = []
    local: list[Pixels] = []
    for number in range(settings.crops):
        rng = keyed_generator(settings.seed, name, number)
        crop = _crop(photograph, rng)
        if rng.random() < settings.gray:
            crop = crop.convert("L").convert("RGB")
        canvas = _draw_canvas(crop.size, rng) if rng.random() < settings.canvas else None
        distort_canvas = rng.random() < 0.4  # the whole sheet is compressed, say, and not the image alone
        for index, version in enumerate(plan_versions(settings, rng)):
            # What is random in a distortion is drawn alike for all levels of a ladder.
            key = ("free", index) if version.ladder is None else (version.ladder, 0)
            image = crop
            if canvas is not None and distort_canvas and version.steps:
                key = ("canvas", index if version.ladder is None else 0)
                image = canvas.around(crop)
            noise = keyed_generator(settings.seed, name, number, *key)
            for kind, level in version.steps:
                image = DISTORTIONS[kind](image, level, noise)
            inside = image
            if canvas is not None:
                inside = image if image.size == crop.size else canvas.inside(image, crop.size)
                image = image if image.size == canvas.size else canvas.around(image)
            pixels = np.asarray(crop), np.asarray(inside)
            indices = {key: round(function(*pixels)[0], 5) for key, function in INDICES.items()}
            views = cut(image, settings.view_size, settings.fragments, rng, centered=False)
            whole.append(views[0])
            local.append(views[1])
            rows.append(
                {"photograph": name, "crop": number, "ladder": version.ladder, "steps": version.steps} | indices
            )
    np.save(folder / f"{name}.globals.npy", np.stack(whole))
    np.save(folder / f"{name}.locals.npy", np.stack(local))
    (folder / f"{name}.json").write_text(json.dumps(rows))


def _crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut a crop and reduce it: to the size of laboratory images, to a small or a large one; or cut a smooth part."""
    style = rng.random()
    smooth = style >= 0.88
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    share = rng.uniform(0.35, 0.6) if smooth else rng.uniform(0.75, 1)
    width = share * min(photograph.width, photograph.height * aspect)
    height = width / aspect
    corners = [
        (rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height))
        for _ in range(8 if smooth else 1)
    ]
    boxes = [(left, top, left + width, top + height) for left, top in corners]
    box = min(boxes, key=lambda each: _activity(photograph, each)) if smooth else boxes[0]
    native = min(width, height)
    if style < 0.55:
        short = min(native, rng.uniform(340, 520))
    elif style < 0.7:
        short = min(native, rng.uniform(150, 300))
    else:
        short = min(native, 640)
    size = (max(64, round(width * short / native)), max(64, round(height * short / native)))
    return photograph.resize(size, Image.Resampling.LANCZOS, box=box)


def _activity(photograph: Image.Image, box: tuple[float, float, float, float]) -> float:
    small = photograph.convert("L").resize((64, 64), Image.Resampling.BOX, box=box)
    pixels = np.asarray(small, np.float32)
    return float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean())


def _draw_canvas(size: tuple[int, int], rng: np.random.Generator) -> Canvas:
    """Draw a white, light gray or black canvas: on all sides, or on two as of a letterboxed frame."""
    light = tuple(rng.integers(225, 256, 1).repeat(3).tolist())
    color = ((255, 255, 255), (0, 0, 0), (255, 255, 255), light)[int(rng.integers(4))]
    style = rng.random()
    wide, high = rng.uniform(1.05, 1.7, 2).tolist() if style < 0.7 else (1.0, float(rng.uniform(1.15, 1.6)))
    if style > 0.9:
        wide, high = high, wide
    whole = (round(size[0] * wide), round(size[1] * high))
    if rng.random() < 0.5 and style < 0.7:
        whole = (max(whole), max(whole))
    return Canvas(whole, ((whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2), color)


class Crops(Views):
    """Crops that `make_crops` made, with labels between 0 (worst) and 1 (clean).

    Attributes:
        photographs: Photograph of each version.
        ladders: Versions of each ladder, the clean one first and the strongest distortion last.
    """

    def __init__(self, folder: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        whole: list[Pixels] = []
        local: list[Pixels] = []
        for path in sorted(folder.glob("*.json")):
            self.rows += json.loads(path.read_text())
            whole.extend(np.load(path.with_suffix(".globals.npy"), mmap_mode="r"))
            local.extend(np.load(path.with_suffix(".locals.npy"), mmap_mode="r"))
        super().__init__(whole, local, label(self.rows))
        self.photographs = [row["photograph"] for row in self.rows]
        ladders: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        clean = {(row["photograph"], row["crop"]): index for index, row in enumerate(self.rows) if not row["steps"]}
        for index, row in enumerate(self.rows):
            if row["ladder"] is not None:
                crop = (row["photograph"], row["crop"])
                ladders.setdefault((*crop, row["ladder"]), [clean[crop]]).append(index)
        self.ladders = list(ladders.values())


def label(rows: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Return labels from the indices of all versions: for each index the mean of its rank and of its value.

    Ranks spread mild distortions, values keep the distance of gross ones. HaarPSI and MDSI follow human opinions of
    laboratory distortions most closely; both get the same weight.
    """
    found = []
    for name in ("haarpsi", "mdsi"):
        values = np.array([row[name] for row in rows], np.float64)
        if name == "mdsi":  # it jumps from mild distortions to none
            values = np.minimum(values, np.quantile(values[values < values.max()], 0.97))
        ranks = np.searchsorted(np.sort(values), values, side="right") / len(values)
        low, high = np.quantile(values, (0.01, 0.99))
        found.append((ranks + np.clip((values - low) / max(high - low, 1e-6), 0, 1.05)) / 2)
    labels = np.mean(found, axis=0)
    # The indices compare pixel by pixel, so they mind bent shapes more than people do.
    bent = np.array([any(kind == "warped" for kind, _ in row["steps"]) for row in rows])
    return np.where(bent, _BENT + (1 - _BENT) * labels, labels)
