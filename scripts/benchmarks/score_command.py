"""Images per second of `sind-hf score`, against a plain loop over Pillow and the same network.

    python scripts/benchmarks/score_command.py [--model bundled] [--count 200] [--large 40] [--rounds 3] [--workers 2]

Prints a Markdown table for JPEG files of 1024×768 and of 12 megapixels. The loop takes one image at a time, as most
commands of image quality packages do: Pillow decodes it and resizes it twice, and the network reads normalized floats.
The command is timed from its first moment of scoring to its end, the loop without its start. Both use all cores. In
every round one runs after the other, so that a busy machine slows both; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from rounds import machine, make_photographs
from views import published

from scoring import score
from sind_hf import SindModel, bundled_checkpoint
from sind_hf.checkpoints import load_checkpoint

KINDS = 8  # different images; the others are copies


def plain_loop(model: SindModel, paths: Sequence[Path], side: int) -> float:
    """Score images one by one; return seconds."""
    start = time.perf_counter()
    with torch.inference_mode():
        for path in paths:
            model(*(view[None] for view in published(path, "center", side)))
    return time.perf_counter() - start


def make_images(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write `count` JPEG files."""
    kinds = [path.read_bytes() for path in make_photographs(folder, size, min(KINDS, count))]
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(kinds[number % len(kinds)])
    return paths


def row(model: SindModel, checkpoint: str, size: tuple[int, int], count: int, options: argparse.Namespace) -> str:
    """Time both for one size of images."""
    seconds: dict[str, list[float]] = {"loop": [], "command": [], "fast": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "images").mkdir()
        paths = make_images(root / "images", size, count)
        for number in range(options.rounds):
            seconds["loop"].append(plain_loop(model, paths, int(model.config.view_size or 0)))
            for name, flags in (("command", []), ("fast", ["--fast-decode"])):
                output = root / f"{name}{number}.csv"
                seconds[name].append(score(root / "images", Path(checkpoint), output, options.workers, flags)[1])
    ratios = {name: float(np.median(np.array(seconds["loop"]) / seconds[name])) for name in ("command", "fast")}
    cells = [f"{size[0]}×{size[1]}", f"{count}", f"{count / np.median(seconds['loop']):.1f}"]
    cells += [f"{count / np.median(seconds['command']):.1f}", f"{ratios['command']:.2f}×", f"{ratios['fast']:.2f}×"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder; default: the bundled one")
    parser.add_argument("--count", type=int, default=200, help="images of 1024×768")
    parser.add_argument("--large", type=int, default=40, help="images of 4000×3000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the command")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    checkpoint = options.model or str(bundled_checkpoint())
    model, _ = load_checkpoint(checkpoint, device="cpu")
    print(f"`sind-hf score` with {options.workers} loader processes ({machine()})\n")
    print("| images | count | loop, images/s | command, images/s | faster than the loop | with --fast-decode |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for size, count in (((1024, 768), options.count), ((4000, 3000), options.large)):
        if count:
            print(row(model, checkpoint, size, count, options), flush=True)


if __name__ == "__main__":
    main()
