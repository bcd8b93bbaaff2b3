"""What fast decoding does to scores: photographs at a camera's size, decoded in full and at a fraction.

    python scripts/benchmarks/fast_decode.py PHOTOS [--model bundled] [--count 300] [--size 4000 2500]

Prints a Markdown table. PHOTOS is a folder; every image of it is enlarged to `--size` pixels on its long side and
saved as JPEG at two qualities, since only large JPEG files are decoded otherwise; both decodings then go through
`score_images`. `--size 0` takes the images as they are. Differences are in points of the checkpoint's scale.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from rounds import machine

from sind_hf import SindImageProcessor, SindModel, bundled_checkpoint, load_image, score_images
from sind_hf.checkpoints import load_checkpoint
from sind_hf.metrics import srcc
from sind_hf.scoring.sources import list_images


def enlarged(path: str, folder: Path, size: int, quality: int) -> str:
    """Write an image as a JPEG of `size` pixels on its long side."""
    image = load_image(path)
    factor = size / max(image.size)
    width, height = (max(round(side * factor), 1) for side in image.size)
    target = folder / f"{Path(path).stem}.jpg"
    image.resize((width, height), Image.Resampling.BICUBIC).save(target, quality=quality)
    return str(target)


def row(model: SindModel, processor: SindImageProcessor, paths: list[str], label: str) -> str:
    """Score all images twice, and compare."""
    scores, seconds = {}, {}
    for fast in (False, True):
        processor.fast_decode = fast
        started = time.perf_counter()
        for path in paths:
            processor.make_views(path)
        seconds[fast] = time.perf_counter() - started
        scores[fast] = np.array([found.score for found in score_images(model, processor, paths)], float)
    difference = np.abs(scores[True] - scores[False])
    middle, high = np.percentile(difference, [50, 99])
    cells = [label, str(len(paths)), f"{middle:.4f}", f"{high:.4f}", f"{difference.max():.4f}"]
    cells += [f"{srcc(scores[True], scores[False]):.4f}", f"{seconds[True] / seconds[False]:.2f}×"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder of photographs")
    parser.add_argument("--model", help="checkpoint; default: the bundled one")
    parser.add_argument("--count", type=int, default=300, help="photographs, evenly from the folder")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[4000, 2500], help="long sides in pixels; 0: as they are"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    model, processor = load_checkpoint(options.model or str(bundled_checkpoint()), device="cpu", fused=True)
    photos = list(list_images([options.photos]))
    photos = photos[:: max(len(photos) // options.count, 1)][: options.count]
    print(f"Fast decoding against full decoding, {options.model or 'bundled'} ({machine()})\n")
    print("| images | count | median difference | 99th percentile | largest | SRCC of both | time of the views |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in options.size:
        if size == 0:
            print(row(model, processor, photos, "as they are"), flush=True)
            continue
        for quality in (95, 75):
            with tempfile.TemporaryDirectory() as folder:
                paths = [enlarged(path, Path(folder), size, quality) for path in photos]
                print(row(model, processor, paths, f"{size} px, JPEG {quality}"), flush=True)


if __name__ == "__main__":
    main()
