"""A graded dataset: photographs, distorted in known steps, with **synthetic** opinion scores.

The score of an image follows from the level of its distortion, and every photograph (a scene) has its own scale and
shift of scores. Real opinion scores of different scenes differ in the same way, and SIND is trained to see through it.
The dataset is for demos, for tests and for trials with own photographs. Correlations on it say nothing about how well
a model agrees with people.

    manifest = grade(packaged_photographs(), "graded")
    print(len(manifest.entries), manifest.entries[0].image)

A kind of distortion is a function that takes an RGB image, a level from 1 (hardly visible) to 5 (very annoying) and a
generator, and returns a new RGB image of the same size. Level 0 changes nothing, and levels between whole ones are
interpolated. The levels were set by eye on photographs of 384 pixels, so that equal levels look about equally bad.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from sind_hf.data.manifests.document import parse_json
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.prepared.folder import file_sha256
from sind_hf.files import atomic_file, read_text, write_json
from sind_hf.image_processing_sind import ImageError, load_image, printable

Distortion = Callable[[Image.Image, float, np.random.Generator], Image.Image]
_PACKAGED = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_RECIPE = 2  # raise it when the same settings give other images or scores
_CROP_SIDE = 0.85  # of the short side of the photograph
_QUALITY_STEP = 0.18  # loss of base quality per level: level 5 is left with 0.1
_OBSERVER_NOISE = 0.025  # standard deviation, cut at three: less than half a step, so that levels keep their order
_SCALES = (0.3, 1.0)  # range of the scene-specific scale; 1 spans the whole score range
_SCORE_RANGE = (1.0, 5.0)
_FIRST_DOMAIN = 10_000  # above the domain IDs of all datasets of the catalog


def at_level(level: float, nothing: float, *levels: float) -> float:
    """Return the parameter of a level, interpolated linearly between whole levels.

    Args:
        level: Level, from 0 to the number of `levels`.
        nothing: Parameter of level 0.
        *levels: Parameters of level 1, 2, …
    """
    return float(np.interp(level, range(len(levels) + 1), (nothing, *levels)))


def at_384(image: Image.Image, pixels: float) -> float:
    """Scale a length for an image with a short side of 384 to this image, so that it covers as much of the content.

    Short sides below 256 count as 256, because Pillow's blur does nothing at a radius of a third of a pixel.
    """
    return pixels * max(256, min(image.size)) / 384


def to_image(values: np.ndarray) -> Image.Image:
    """Return the image of (H, W, 3) values, rounded and clipped to 0..255."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def gaussian_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Defocus: Gaussian blur with a growing radius."""
    return image.filter(ImageFilter.GaussianBlur(at_384(image, at_level(level, 0, 0.8, 1.4, 2.1, 3.1, 4.5))))


def motion_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Camera shake: the mean along a straight path in a random direction."""
    length = at_384(image, at_level(level, 1, 4, 7, 11, 17, 26))
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, max(2, round(length) + 1))
    shifts = np.stack([np.rint(steps * np.sin(angle)), np.rint(steps * np.cos(angle))], axis=1).astype(int)
    margin = int(np.abs(shifts).max())
    pixels = np.asarray(image, np.float32)
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for down, right in shifts:
        total += padded[margin + down : margin + down + height, margin + right : margin + right + width]
    return to_image(total / len(shifts))


def white_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Sensor noise: Gaussian, independent in every pixel and channel."""
    sigma = at_level(level, 0, 9, 17, 28, 43, 64)
    pixels = np.asarray(image, np.float32)
    return to_image(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32))


def jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compression: JPEG with a falling quality setting."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(at_level(level, 95, 30, 16, 10, 7, 4)))
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def downscaling(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Lost resolution: reduced by a growing factor and enlarged again."""
    factor = max(1, at_384(image, at_level(level, 0, 2.2, 3.2, 4.6, 6.6, 9.5)))
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def contrast_loss(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Flat tones: all values move toward the mean gray of the image."""
    gray = float(np.asarray(image.convert("L"), np.float32).mean())
    return to_image(gray + at_level(level, 1, 0.76, 0.6, 0.46, 0.34, 0.23) * (np.asarray(image, np.float32) - gray))


def overexposure(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Too much light: brightened until bright areas burn out."""
    lift = at_level(level, 0, 0.1, 0.18, 0.27, 0.37, 0.48)
    return to_image((1 + lift / 2) * np.asarray(image, np.float32) + 255 * lift)


_KINDS = (gaussian_blur, motion_blur, white_noise, jpeg, downscaling, contrast_loss, overexposure)
DISTORTIONS: dict[str, Distortion] = {kind.__name__: kind for kind in _KINDS}
"""All kinds by name."""


class PhotographWarning(UserWarning):
    """A photograph cannot be used and is left out of the graded dataset."""


def packaged_photographs() -> dict[str, Path]:
    """Return the photographs inside the scikit-image package, by name. Nothing is downloaded.

    There are fourteen (people, things, textures, space, medicine; six of them gray), sorted by name.

    Raises:
        ValueError: If scikit-image is not installed, or its package has none of them.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError('the packaged photographs come with scikit-image; install it: pip install "sind-hf[demo]"')
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    photographs = {name: folder / file for name, file in _PACKAGED.items() if (folder / file).is_file()}
    if not photographs:
        raise ValueError(f"no known photographs in {folder}; give a folder of photographs instead")
    return photographs


@dataclass(frozen=True)
class _Settings:
    """Everything that the images and scores depend on; saved with them as grading.json."""

    recipe: int
    seed: int
    size: int
    crops: int
    levels: int
    kinds: list[str]
    photographs: dict[str, str | None]  # name -> SHA-256 of the file, None if it cannot be read


def grade(
    photographs: Mapping[str, Path | str] | Path | str,
    output_dir: Path | str,
    *,
    kinds: Sequence[str] | None = None,
    levels: int = 5,
    crops: int = 2,
    size: int = 384,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Make a graded dataset from photographs: every crop, clean and with each kind of distortion at each level.

    The score of an image is `1 + 4 * (shift + scale * base)`. The base quality is 1 for a clean image and falls by
    0.18 per level, with a little observer noise that keeps the order of the levels. Each scene draws its scale from
    [0.3, 1] and its shift so that all scores are in 1..5. An image depends only on the seed, its photograph, its kind
    and its level: adding photographs or kinds changes no other image. With the same versions of Pillow and NumPy the
    same settings give the same bytes.

    Args:
        photographs: Files by scene name, or a folder, whose image files become scenes named after them.
        output_dir: Folder for `images/<scene>/*.png`, `manifest.json` (paths relative to this folder) and
            `grading.json`, the settings and the photographs that were left out. A dataset that was made with the same
            settings is completed.
        kinds: Names from `DISTORTIONS`. Default: all.
        levels: Number of levels, 1 to 5.
        crops: Number of square crops of each photograph, with 85 % of its short side, at random places.
        size: Side of the images in pixels.
        seed: Non-negative seed of places, noise, scales and shifts.
        progress: Called with (images done, images in all).

    Returns:
        The manifest, saved as `output_dir/manifest.json`, with one scene and one domain per photograph. `reference`
        names photograph and crop, and `distortion` the kind (`None` for a clean image). Photographs that cannot be
        used are left out, each with a `PhotographWarning`.

    Raises:
        ValueError: If an argument is not valid, no photograph can be used, or the output folder has other content.
    """
    files = _photograph_files(photographs)
    settings = _settings(files, kinds, levels, crops, size, seed)
    output_dir = Path(output_dir)
    record_path, manifest_path = output_dir / "grading.json", output_dir / "manifest.json"
    record = _previous_record(record_path, settings)
    if record is not None and manifest_path.is_file():
        manifest = Manifest.load(manifest_path)
        if all((output_dir / entry.image).is_file() for entry in manifest.entries):
            _warn_left_out(record["left_out"])
            return manifest
    write_json(record_path, {**asdict(settings), "left_out": {}})

    total = len(files) * crops * (1 + len(settings.kinds) * levels)
    entries: list[ManifestEntry] = []
    left_out: dict[str, str] = {}
    domain_names: dict[int, str] = {}
    done = 0
    for domain_id, (scene, path) in enumerate(files.items(), _FIRST_DOMAIN):
        try:
            photograph = load_image(path)
            if min(photograph.size) < size / 2:
                pixels = f"{photograph.width}x{photograph.height} pixels"
                raise ImageError(f"{printable(path)}: {pixels} are too few for images of {size}")
        except ImageError as error:
            left_out[scene] = str(error)
            done += total // len(files)
        else:
            domain_names[domain_id] = scene
            for entry in _grade_scene(photograph, scene, domain_id, settings, output_dir):
                entries.append(entry)
                done += 1
                if progress is not None:
                    progress(done, total)
    _warn_left_out(left_out)
    if not entries:
        record_path.unlink()
        raise ValueError(f"none of the {len(files)} photographs could be used; {next(iter(left_out.values()))}")

    manifest = Manifest(
        dataset="graded",
        entries=entries,
        score=ScoreInfo(name="pseudo MOS", range=_SCORE_RANGE, higher_is_better=True),
        domain_names=domain_names,
        reference_based=True,
        source=f"synthetic: distorted photographs, made-up scores, no human ratings (recipe {_RECIPE}, seed {seed})",
    )
    write_json(record_path, {**asdict(settings), "left_out": left_out})
    manifest.save(manifest_path)
    return manifest


def _photograph_files(photographs: Mapping[str, Path | str] | Path | str) -> dict[str, Path]:
    """Return the files by scene name, sorted. The names are checked because they become folders."""
    if isinstance(photographs, Mapping):
        files = {name: Path(path) for name, path in photographs.items()}
    else:
        folder = Path(photographs)
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder of photographs")
        visible = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        found = sorted(path for path in visible if path.suffix.lower() in _SUFFIXES)
        stems = [path.stem for path in found]
        files = {path.stem if stems.count(path.stem) == 1 else path.name: path for path in found}
        if not files:
            raise ValueError(f"{folder} holds no photographs ({', '.join(sorted(_SUFFIXES))})")
    if not files:
        raise ValueError("no photographs given")
    for name in files:
        if not name or name.startswith(".") or any(character in name for character in "/\\:\0"):
            raise ValueError(f"{name!r} cannot be a scene: it names a folder, so use no leading dot, slash or colon")
    return dict(sorted(files.items()))


def _settings(
    files: Mapping[str, Path], kinds: Sequence[str] | None, levels: int, crops: int, size: int, seed: int
) -> _Settings:
    kinds = list(DISTORTIONS) if kinds is None else list(dict.fromkeys(kinds))
    for kind in kinds:
        if kind not in DISTORTIONS:
            near = difflib.get_close_matches(kind, DISTORTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DISTORTIONS)}"
            raise ValueError(f"{kind!r} is not a kind of distortion; {hint}")
    if not 1 <= levels <= 5:
        raise ValueError(f"levels is {levels}; give at least 1 and at most 5")
    for name, value, least in (("crops", crops, 1), ("size", size, 64), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; give at least {least}")
    digests = {name: _digest(path) for name, path in files.items()}
    return _Settings(_RECIPE, seed, size, crops, levels, kinds, digests)


def _digest(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _previous_record(record_path: Path, settings: _Settings) -> dict | None:
    """Return the record of a dataset with the same settings, or None for a new folder; refuse any other folder."""
    output_dir = record_path.parent
    advice = "choose another output folder or delete this one"
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"{output_dir} is a file; {advice}")
    if not output_dir.exists() or not any(output_dir.iterdir()):
        return None
    if not record_path.is_file():
        raise ValueError(f"{output_dir} holds other files and no graded dataset; {advice}")
    try:
        record = parse_json(read_text(record_path))
        earlier = {name: record[name] for name in [*asdict(settings), "left_out"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{record_path} cannot be read as the record of a graded dataset; {advice}") from None
    for name, value in asdict(settings).items():
        if earlier[name] != value:
            difference = "" if name == "photographs" else f" ({earlier[name]}, now {value})"
            raise ValueError(f"{output_dir} holds a graded dataset with other {name}{difference}; {advice}")
    return earlier


def _warn_left_out(left_out: Mapping[str, str]) -> None:
    for scene, reason in left_out.items():
        warnings.warn(f"photograph {scene!r} left out: {reason}", PhotographWarning, stacklevel=3)


def keyed_generator(*key: str | int) -> np.random.Generator:
    """Return a generator for one purpose, independent of every other and of the order of work."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()))


def _crop(photograph: Image.Image, scene: str, crop: int, settings: _Settings) -> Image.Image:
    side = max(1, int(_CROP_SIDE * min(photograph.size)))
    rng = keyed_generator(settings.seed, "crop", scene, crop)
    left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
    box = (left, top, left + side, top + side)
    return photograph.resize((settings.size, settings.size), Image.Resampling.LANCZOS, box=box)


def _score(scene: str, crop: int, kind: str, level: int, seed: int) -> float:
    rng = keyed_generator(seed, "scene", scene)
    scale = rng.uniform(*_SCALES)
    shift = rng.uniform(0, 1 - scale)
    deviation = keyed_generator(seed, "observer", scene, crop, kind, level).standard_normal()
    noise = _OBSERVER_NOISE * np.clip(deviation, -3, 3)
    base = np.clip(1 - _QUALITY_STEP * level + noise, 0, 1)
    low, high = _SCORE_RANGE
    return round(float(low + (high - low) * (shift + scale * base)), 3)


def _grade_scene(
    photograph: Image.Image, scene: str, domain_id: int, settings: _Settings, output_dir: Path
) -> Iterator[ManifestEntry]:
    folder = output_dir / "images" / scene
    folder.mkdir(parents=True, exist_ok=True)
    for crop in range(settings.crops):
        clean = _crop(photograph, scene, crop, settings)
        levels = range(1, settings.levels + 1)
        for kind, level in [("clean", 0), *product(settings.kinds, levels)]:
            path = folder / (f"{crop}-clean.png" if level == 0 else f"{crop}-{kind}-{level}.png")
            if not path.is_file():  # a file of an interrupted run is complete
                rng = keyed_generator(settings.seed, "distortion", scene, crop, kind, level)
                image = clean if level == 0 else DISTORTIONS[kind](clean, level, rng)
                with atomic_file(path, sync=False) as temporary:
                    # Twice the speed of the default level for a few per cent more bytes.
                    image.save(temporary, "PNG", compress_level=1)
            yield ManifestEntry(
                image=path.relative_to(output_dir).as_posix(),
                score=_score(scene, crop, kind, level, settings.seed),
                scene=scene,
                domain_id=domain_id,
                reference=f"{scene}-{crop}",
                distortion=None if level == 0 else kind,
            )
