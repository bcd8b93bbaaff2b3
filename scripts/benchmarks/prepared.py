"""Time of one training sample on one core: published transform, from the image, from prepared data.

    python scripts/benchmarks/prepared.py [--repeats 15]

Prints a Markdown table. The prepared images are read from the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import datasets
import numpy as np
import torch
from rounds import machine, make_photographs, time_in_turn

from sind_hf import SindImageProcessor
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.prepared.folder import load_prepared
from sind_hf.data.prepared.prepare import prepare
from sind_hf.data.sampling import Draw
from sind_hf.data.views import ViewDataset

SIZES = [(1024, 768), (4000, 3000)]
IMAGES = 8
PREPARED_SAMPLES = 20  # a round times this many prepared samples: one alone is too short for the clock


def published_transform(path: Path) -> torch.Tensor:
    """What the published data loader does: both resizes with Pillow, views normalized on the CPU in float32."""
    processor = SindImageProcessor(resize_backend="pillow")
    views = processor.make_views(path, "train", np.random.default_rng(0))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return torch.stack([(torch.from_numpy(view[0]).float() / 255 - mean) / deviation for view in views])


def measure(size: tuple[int, int], repeats: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder), Path(folder) / "prepared"
        paths = make_photographs(root, size, IMAGES)
        manifest = Manifest("generated", [ManifestEntry(path.name, float(i)) for i, path in enumerate(paths)])
        prepare(manifest, root, out)
        direct = ViewDataset(manifest.to_dataset(root), SindImageProcessor(), "train")
        prepared = ViewDataset(load_prepared(out), SindImageProcessor(), "train")

        def several(start: int) -> None:
            for position in range(start, start + PREPARED_SAMPLES):
                prepared[Draw(position % IMAGES, 0, position)]

        found = time_in_turn(
            {
                "published": lambda number: published_transform(paths[number % IMAGES]),
                "plain": lambda number: direct[Draw(number % IMAGES, 0, number)],
                "prepared": several,
            },
            repeats,
        )
    published, plain, several_at_once = (1e3 * found.median(name) for name in ("published", "plain", "prepared"))
    ratios = [PREPARED_SAMPLES * found.ratio(name, "prepared") for name in ("published", "plain")]
    times = f"{published:.1f} ms | {plain:.1f} ms | {several_at_once / PREPARED_SAMPLES:.2f} ms"
    return f"| {size[0]}×{size[1]} JPEG | {times} | {ratios[0]:.0f}× | {ratios[1]:.0f}× |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="rounds per image size")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"One training sample on one core ({machine(datasets)}; medians of {repeats} rounds)\n")
    print("| image | Pillow and float32 | unprepared | prepared | Pillow / prepared | unprepared / prepared |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in SIZES:
        print(measure(size, repeats), flush=True)


if __name__ == "__main__":
    main()
