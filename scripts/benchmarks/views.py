"""Time from a JPEG file to its views on one core: the published transforms against ours.

    python scripts/benchmarks/views.py [--rounds 15]

Prints a Markdown table. The published transforms are written from their description: Pillow's resizes, views made one
by one as float32 tensors and normalized on the CPU. Ours are uint8: the model normalizes them. Where torchvision is
installed, its uint8 resize is timed too.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rounds import machine, make_photographs, time_in_turn

from sind_hf import SindImageProcessor, load_image
from sind_hf.image_processing_sind import cut_views, local_image_size, plan_views

SIZES = [(1024, 768), (4000, 3000)]
IMAGES = 4
MODES = ("train", "nine", "center")


def published(path: Path, mode: Any, side: int = 224) -> list[torch.Tensor]:
    """What the published data loader does, in Pillow and torch."""
    image = Image.open(path).convert("RGB")
    height, width = local_image_size(*image.size, side)
    sizes = ((8 * side // 7, 8 * side // 7), (width, height))
    images = [np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for size in sizes]
    plans = plan_views(mode, (height, width), side, np.random.default_rng(0))
    mean, deviation = (
        torch.tensor(v).view(3, 1, 1) for v in (SindImageProcessor.image_mean, SindImageProcessor.image_std)
    )
    views = [view for pair in cut_views(*images, plans, side) for view in pair]
    return [(torch.from_numpy(view).float().div(255) - mean) / deviation for view in views]


def with_torchvision(path: Path, mode: Any) -> list[torch.Tensor]:
    """The same with torchvision's resize of uint8 tensors."""
    from torchvision.transforms.v2 import functional

    image = functional.pil_to_tensor(load_image(path))
    height, width = local_image_size(image.shape[2], image.shape[1])
    resized = [functional.resize(image, list(size), antialias=True) for size in ((256, 256), (height, width))]
    images = [image.permute(1, 2, 0).numpy() for image in resized]
    plans = plan_views(mode, (height, width), generator=np.random.default_rng(0))
    return [torch.from_numpy(views) for views in cut_views(*images, plans)]


def rows(size: tuple[int, int], count: int) -> list[str]:
    """The rows of one size of image."""
    plain, fast = SindImageProcessor(), SindImageProcessor(fast_decode=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photographs(Path(folder), size, IMAGES)

        def ours(processor: SindImageProcessor, mode: Any) -> Callable[[int], object]:
            return lambda number: processor.make_views(paths[number % IMAGES], mode, np.random.default_rng(0))

        for mode in MODES:
            actions: dict[str, Callable[[int], object]] = {
                "decode": lambda number: load_image(paths[number % IMAGES]),
                "published": lambda number, mode=mode: published(paths[number % IMAGES], mode),  # type: ignore[misc]
                "ours": ours(plain, mode),
                "fast": ours(fast, mode),
            }
            if importlib.util.find_spec("torchvision"):
                actions["torchvision"] = lambda number, mode=mode: with_torchvision(  # type: ignore[misc]
                    paths[number % IMAGES], mode
                )
            found = time_in_turn(actions, count)
            cells = [f"{size[0]}×{size[1]}", mode, f"{1e3 * found.median('decode'):.1f} ms"]
            cells += [f"{1e3 * found.median('published'):.1f} ms", f"{found.ratio('ours', 'published'):.2f}×"]
            cells += [f"{found.ratio('fast', 'published'):.2f}×"]
            cells += [
                f"{found.ratio('torchvision', 'published'):.2f}×" if "torchvision" in actions else "not installed"
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds for every row")
    count = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"From a JPEG file to its views, one core ({machine()}; medians of {count} rounds)\n")
    print("| image | views | decode alone | published | ours / published | with fast_decode | torchvision |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        for line in rows(size, count):
            print(line, flush=True)


if __name__ == "__main__":
    main()
