"""Distorted crops of photographs, each with how far it is from its original: a training set without opinions.

    make_crops(photographs, "crops")
    manifest, fragments = label_crops("crops")

Every photograph gives some crops, every crop some versions: as it is, ladders of one kind of distortion at rising
levels, single distortions and pairs of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sind_hf.data.graded import keyed_generator, write_png
from sind_hf.data.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.files import sole_use, write_json
from sind_hf.image_processing_sind import GRID, ImageError, load_image
from sind_hf.pretraining.distortions import DISTORTIONS
from sind_hf.pretraining.full_reference import INDICES

Part = Literal["all", "ladders", "others", "whole ladders"]

CLEAN = "clean"
#: Drawn more often than the others: what most pictures go through.
COMMON = (
    "jpeg",
    "webp",
    "avif",
    "video_like",
    "gaussian_blur",
    "lens_blur",
    "downscaling",
    "white_noise",
    "high_iso_noise",
)
_COMMON_SHARE = 0.35
_ASPECTS = (1.0, 1.0, 4 / 3, 3 / 4, 1.5)  # width to height
_HIGHEST = 5.0
_DATASET = "distorted crops"


@dataclass(frozen=True)
class CropRecipe:
    """All that decides which crops are made.

    Attributes:
        crops: Of each photograph.
        ladders: In each crop: one kind of distortion at rising levels.
        rungs: Levels of a ladder.
        singles: Versions of each crop with one distortion.
        doubles: Versions of each crop with two, one after the other.
        shortest: Short side of the smallest crops in pixels, where the photograph has as many.
        longest: Short side of the largest.
        share: Least part of the photograph's side that a crop covers.
        kinds: Of the ladders of a crop, each at most as often as it stands here; empty: any, as for other versions.
        levels: Lowest and highest. What is above 5 is 5: with a highest of 5.6 every ladder of eight reaches the end.
        grey: Share of the crops that are made grey first, so that black and white photographs are originals, too.
        seed: Of every choice.
    """

    crops: int = 2
    ladders: int = 2
    rungs: int = 3
    singles: int = 4
    doubles: int = 3
    shortest: int = 320
    longest: int = 512
    share: float = 0.7
    kinds: tuple[str, ...] = ()
    levels: tuple[float, float] = (0.3, 5.0)
    grey: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Version:
    """One version of a crop: what was done to it, in this order; nothing for the crop as it is.

    What is random in a distortion, such as the direction of a motion, is drawn alike for all levels of a `ladder`.
    """

    name: str
    steps: tuple[tuple[str, float], ...] = ()
    ladder: str | None = None


def make_crops(
    photographs: Mapping[str, Path],
    folder: str | os.PathLike[str],
    recipe: CropRecipe = CropRecipe(),
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Make the crops of all photographs; those that are there already are not made again.

    `folder/<name>/` gets the pictures (PNG) and `folder/<name>.json` what is known about them, written last.

    Args:
        photographs: Files by name; the name becomes the scene.
        folder: Of one recipe.
        recipe: What to make.
        workers: Processes.
        progress: Called with (photographs done, photographs in all).

    Returns:
        The photographs that cannot be used, and why.

    Raises:
        ValueError: When the folder has crops of another recipe, or another run is at work there.
    """
    folder = Path(folder)
    with sole_use(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _require_same_recipe(folder / "recipe.json", recipe)
        missing = {name: path for name, path in photographs.items() if not (folder / f"{name}.json").is_file()}
        done, failures = len(photographs) - len(missing), {}
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(_crop_photograph, name, path, folder, recipe) for name, path in missing.items()]
            for name, job in zip(missing, jobs, strict=True):
                if (failure := job.result()) is not None:
                    failures[name] = failure
                done += 1
                if progress is not None:
                    progress(done, len(photographs))
    return failures


def label_crops(
    folder: str | os.PathLike[str],
    photographs: Sequence[str],
    *,
    among: str | os.PathLike[str] | None = None,
    part: Part = "all",
) -> tuple[Manifest, npt.NDArray[np.float32]]:
    """Score crops by their rank among all of them, averaged over the full-reference indices.

    Ranks make the indices comparable and need no opinion to be put on a scale. Like opinions they go from 1, the worst
    of these pictures, to 5, the originals.

    Args:
        folder: That `make_crops` filled.
        photographs: Names of those to take.
        among: Folder of other crops of these photographs, among which the ranks are taken, so that both sets are on
            one scale.
        part: Which of their pictures: all, or the ladders alone, or the others. The scenes are the photographs, or the
            ladders where they are alone. "whole ladders": all, where each crop has one ladder, which begins with the
            crop as it is and is the scene.

    Returns:
        The manifest (reference: the crop; images relative to `folder`), and the same for the 7×7 fragments of every
        picture, (pictures, 7, 7), as shares of all fragments between 0 and 1.

    Raises:
        ValueError: When the crops of a photograph are missing.
    """
    pictures = _read_crops(folder, photographs)
    if part in ("ladders", "others"):
        pictures = [picture for picture in pictures if (picture["ladder"] is not None) == (part == "ladders")]
    ranked = pictures if among is None else _read_crops(among, photographs)
    indices, ranked_indices = _indices(pictures), _indices(ranked)
    means, ranked_means = (_shares(each, ranked_indices).mean(0)[None] for each in (indices, ranked_indices))
    scores = _shares(means, ranked_means)[0]
    local = _shares(_fragment_indices(pictures), _fragment_indices(ranked)).mean(0)
    names = [_scene(picture, part) for picture in pictures]
    domains = {name: number for number, name in enumerate(dict.fromkeys(names))}
    entries = [
        ManifestEntry(
            image=picture["image"],
            score=round(1 + 4 * float(score), 4),
            scene=name,
            domain_id=domains[name],
            reference=picture["reference"],
            distortion=picture["distortion"],
        )
        for picture, name, score in zip(pictures, names, scores, strict=True)
    ]
    manifest = Manifest(
        dataset=_DATASET,
        entries=entries,
        score=ScoreInfo(name="rank by full-reference indices", range=(1.0, 5.0), higher_is_better=True),
        domain_names={number: name for name, number in domains.items()},
        reference_based=True,
        source=f"synthetic: distorted photographs, ranked by {', '.join(INDICES)}; no human ratings",
    )
    return manifest, local.reshape(-1, GRID, GRID).astype(np.float32)


def _read_crops(folder: str | os.PathLike[str], photographs: Sequence[str]) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = []
    for name in photographs:
        try:
            pictures += json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder}: the crops of {name} are missing: make them first.") from None
    return pictures


def _scene(picture: dict[str, Any], part: Part) -> str:
    if part == "whole ladders":
        return str(picture["reference"])
    return f"{picture['reference']} {picture['ladder']}" if part == "ladders" else str(picture["scene"])


def _indices(pictures: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """(indices, pictures)."""
    return np.array([[picture["indices"][name] for picture in pictures] for name in INDICES])


def _fragment_indices(pictures: Sequence[dict[str, Any]]) -> npt.NDArray[np.float32]:
    """(indices, fragments of all pictures)."""
    values = [[picture["fragments"][name] for picture in pictures] for name in INDICES]
    return np.array(values, np.float32).reshape(len(INDICES), -1)


def _shares(values: npt.NDArray[Any], among: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Turn every row into its ranks between 0 and 1 among the same row of others; equal values get the highest."""
    below = [np.searchsorted(np.sort(row), part, side="right") for part, row in zip(values, among, strict=True)]
    return np.clip((np.array(below) - 1) / max(1, among.shape[1] - 1), 0, 1)


def _require_same_recipe(path: Path, recipe: CropRecipe) -> None:
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier != json.loads(json.dumps(asdict(recipe))):
            raise ValueError(f"{path.parent}: holds crops of another recipe; choose another folder, or delete it.")
    else:
        write_json(path, asdict(recipe))


def _crop_photograph(name: str, path: Path, folder: Path, recipe: CropRecipe) -> str | None:
    """Make the crops of one photograph; return why it cannot be used."""
    try:
        photograph = load_image(path)
    except ImageError as error:
        return str(error)
    (folder / name).mkdir(exist_ok=True)
    pictures = []
    for number in range(recipe.crops):
        rng = keyed_generator(recipe.seed, name, number)
        crop = _crop(photograph, recipe, rng)
        if recipe.grey and rng.random() < recipe.grey:
            crop = crop.convert("L").convert("RGB")
        original = np.asarray(crop)
        for version in plan_versions(recipe, rng):
            image = crop
            noise = keyed_generator(recipe.seed, name, number, version.ladder or version.name)
            for kind, level in version.steps:
                image = DISTORTIONS[kind](image, level, noise)
            file = f"{name}/{number}-{version.name}.png"
            write_png(folder / file, image)
            found = {index: function(original, np.asarray(image)) for index, function in INDICES.items()}
            pictures.append(
                {
                    "image": file,
                    "scene": name,
                    "reference": f"{name}-{number}",
                    "distortion": "+".join(kind for kind, _ in version.steps) or None,
                    "levels": [level for _, level in version.steps],
                    "ladder": version.ladder,
                    "indices": {index: round(value, 6) for index, (value, _) in found.items()},
                    "fragments": {index: _fragments(similarity) for index, (_, similarity) in found.items()},
                }
            )
    write_json(folder / f"{name}.json", pictures)
    return None


def plan_versions(recipe: CropRecipe, rng: np.random.Generator) -> Iterator[Version]:
    """Draw what is done to one crop."""
    yield Version(CLEAN)
    low, high = recipe.levels
    kinds = rng.permutation(recipe.kinds).tolist()
    for ladder in range(recipe.ladders):
        kind = kinds[ladder] if kinds else _draw_kind(rng)
        for step in range(recipe.rungs):
            level = min(_HIGHEST, low + (high - low) * (step + rng.uniform(0.1, 0.9)) / recipe.rungs)
            yield Version(f"ladder{ladder}.{step}-{kind}", ((kind, level),), f"ladder{ladder}-{kind}")
    for single in range(recipe.singles):
        kind = _draw_kind(rng)
        yield Version(f"single{single}-{kind}", ((kind, min(_HIGHEST, float(rng.uniform(low, high)))),))
    for double in range(recipe.doubles):
        first, second = _draw_kind(rng), _draw_kind(rng)
        levels = rng.uniform(low, 0.7 * high, 2).tolist()
        yield Version(f"double{double}-{first}-{second}", ((first, levels[0]), (second, levels[1])))


def _draw_kind(rng: np.random.Generator) -> str:
    kinds = COMMON if rng.random() < _COMMON_SHARE else tuple(DISTORTIONS)
    return kinds[int(rng.integers(len(kinds)))]


def _crop(photograph: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Image.Image:
    """Cut a piece at a random place, of random shape and size, and reduce it where it is large."""
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    share = rng.uniform(recipe.share, 1)
    width = share * min(photograph.width, photograph.height * aspect)
    height = width / aspect
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    short = min(min(width, height), rng.uniform(recipe.shortest, recipe.longest))
    scale = short / min(width, height)
    size = (max(GRID, round(width * scale)), max(GRID, round(height * scale)))
    return photograph.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))


def _fragments(similarity: npt.NDArray[np.float32]) -> list[float]:
    cells = Image.fromarray(similarity.astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
    return np.asarray(cells).round(4).reshape(-1).tolist()
