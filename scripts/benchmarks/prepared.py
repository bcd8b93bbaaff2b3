"""Time of one training sample on one core: published transform, from the picture, from prepared data.

    python scripts/benchmarks/prepared.py [--repeats 15]

Prints a Markdown table. The three are timed in turn in every round, so that a busy machine slows all of them; the
ratios are medians of the ratios of a round. The prepared pictures are read from the page cache.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import PIL
import torch
from PIL import Image, ImageFilter

from sind_hf import SindImageProcessor
from sind_hf.data.manifest import Manifest, ManifestEntry
from sind_hf.data.preparation import prepare
from sind_hf.data.prepared import load_prepared
from sind_hf.data.sampling import Draw
from sind_hf.data.views import ViewDataset

SIZES = [(1024, 768), (4000, 3000)]
PICTURES = 8
PREPARED_SAMPLES = 20  # a round times this many prepared samples: one alone is too short for the clock


def make_photographs(root: Path, size: tuple[int, int]) -> Manifest:
    """JPEG pictures with the detail and the file size of photographs: smoothed noise of two scales."""
    rng = np.random.default_rng(0)
    entries = []
    for index in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        fine = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).filter(ImageFilter.BoxBlur(1))
        Image.blend(coarse, fine, 0.25).save(root / f"{index}.jpg", quality=90)
        entries.append(ManifestEntry(f"{index}.jpg", float(index)))
    return Manifest("generated", entries)


def published_transform(path: Path) -> torch.Tensor:
    """What the published data loader does: both resizes with Pillow, views normalised on the CPU in float32."""
    processor = SindImageProcessor(resize_backend="pillow")
    views = processor.make_views(path, "train", np.random.default_rng(0))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return torch.stack([(torch.from_numpy(view[0]).float() / 255 - mean) / deviation for view in views])


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(size: tuple[int, int], repeats: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder), Path(folder) / "prepared"
        manifest = make_photographs(root, size)
        prepare(manifest, root, out)
        direct = ViewDataset(manifest.to_dataset(root), SindImageProcessor(), "train")
        prepared = ViewDataset(load_prepared(out), SindImageProcessor(), "train")

        def several(start: int) -> None:
            for position in range(start, start + PREPARED_SAMPLES):
                prepared[Draw(position % PICTURES, 0, position)]

        several(0)
        rounds = np.array(
            [
                (
                    seconds(lambda number=number: published_transform(root / f"{number % PICTURES}.jpg")),
                    seconds(lambda number=number: direct[Draw(number % PICTURES, 0, number)]),
                    seconds(lambda number=number: several(number)) / PREPARED_SAMPLES,
                )
                for number in range(repeats)
            ]
        )
    published, plain, fast = np.median(rounds, axis=0) * 1e3
    ratios = np.median(rounds[:, :2] / rounds[:, 2:], axis=0)
    name = f"{size[0]}×{size[1]} JPEG"
    return f"| {name} | {published:.1f} ms | {plain:.1f} ms | {fast:.2f} ms | {ratios[0]:.0f}× | {ratios[1]:.0f}× |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="rounds per picture size")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    versions = f"torch {torch.__version__}, Pillow {PIL.__version__}, datasets {datasets.__version__}"
    print(f"One training sample on one core ({machine}, {versions}; medians of {repeats} rounds)\n")
    print("| picture | Pillow and float32 | unprepared | prepared | Pillow / prepared | unprepared / prepared |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in SIZES:
        print(measure(size, repeats), flush=True)


if __name__ == "__main__":
    main()
