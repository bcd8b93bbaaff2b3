"""What the benchmarks share: images to time on, actions timed in turn, and the line that says on what machine.

The actions of a round are timed one after the other, so that a busy machine slows all of them alike; what is reported
is the median of the ratios of the rounds, never a ratio of figures from different minutes.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import torch
import transformers
from PIL import Image, ImageFilter

from sind_hf import __version__


@dataclass(frozen=True)
class Rounds:
    """Seconds of every action in every round.

    Attributes:
        seconds: By the name of the action, shape (rounds,).
    """

    seconds: Mapping[str, npt.NDArray[np.float64]]

    def median(self, name: str) -> float:
        """Median seconds of an action."""
        return float(np.median(self.seconds[name]))

    def ratio(self, name: str, other: str) -> float:
        """Median over the rounds of the time of one action in units of another's."""
        return float(np.median(self.seconds[name] / self.seconds[other]))


def time_in_turn(actions: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int = 1) -> Rounds:
    """Time actions in turn.

    Args:
        actions: By name; each is called with the number of the round.
        rounds: How often.
        warm_up: Rounds before those that count.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(-warm_up, rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action(max(number, 0))
            if number >= 0:
                found[name].append(time.perf_counter() - start)
    return Rounds({name: np.array(values) for name, values in found.items()})


def make_photographs(root: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write JPEG images with the detail and the file size of photographs: smoothed noise of two scales."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        fine = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).filter(ImageFilter.BoxBlur(1))
        paths.append(root / f"{index}.jpg")
        Image.blend(coarse, fine, 0.25).save(paths[-1], quality=90)
    return paths


def machine(*packages: object) -> str:
    """Say what was measured on: processor, cores, Python, versions of torch, transformers, Pillow and `packages`."""
    versions = [f"torch {torch.__version__}", f"transformers {transformers.__version__}", f"Pillow {PIL.__version__}"]
    versions += [f"{package.__name__} {package.__version__}" for package in packages]  # type: ignore[attr-defined]
    system = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{system}{device}; {', '.join(versions)}, sind_hf {__version__}"
