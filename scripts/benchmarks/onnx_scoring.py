"""Time to score an image on one core: PyTorch, fused, the exported file by onnxruntime, and compiled.

    python scripts/benchmarks/onnx_scoring.py [--backbone bundled] [--images 4] [--repeats 7] [--compile]

Prints a Markdown table. All ways go through `score_images` with the same images, views included, in turn in every
round, so that a busy machine slows all of them; a ratio is the median of the ratios of a round. Only the bundled
checkpoint has trained weights; weights change the scores, not the time.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from PIL import Image

from sind_hf import SindConfig, SindImageProcessor, SindModel, score_images
from sind_hf.distributed import keep_freed_memory
from sind_hf.fusion import fuse
from sind_hf.onnx.export import export_onnx
from sind_hf.onnx.model import OnnxSindModel, ScoringModel

BUNDLED = "bundled"
BACKBONES: dict[str, dict[str, Any]] = {
    "small ResNet": {
        "model_type": "resnet",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
    "ResNet-50": {"model_type": "resnet"},
    "CLIP ViT-B/16": {"model_type": "clip_vision_model", "patch_size": 16},
}
BATCH_SIZES = (1, 4)
SIZE = (512, 384)
TOLERANCE = 1e-4  # of the scores, which are below 10 in size


def make_images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [Image.fromarray(grid).resize(SIZE, Image.Resampling.BICUBIC) for grid in grids]


def make_model(name: str) -> tuple[SindModel, SindImageProcessor]:
    if name == BUNDLED:
        return SindModel.from_pretrained(BUNDLED).eval(), SindImageProcessor.from_pretrained(BUNDLED)
    torch.manual_seed(0)
    return SindModel(SindConfig(vision_config=BACKBONES[name])).eval(), SindImageProcessor()


def measure(name: str, images: list[Image.Image], repeats: int, compiles: bool) -> list[str]:
    model, processor = make_model(name)

    def timed(scorer: ScoringModel, batch_size: int) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        rows = list(score_images(scorer, processor, images, batch_size=batch_size))
        seconds = time.perf_counter() - start
        return seconds / len(images), np.array([row.score for row in rows])

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, processor, Path(folder) / "sind.onnx").path
        scorers: list[ScoringModel] = [model, fuse(copy.deepcopy(model)), OnnxSindModel(path, threads=1)]
        if compiles:
            compiled = fuse(copy.deepcopy(model))
            compiled.vision_model.compile()
            scorers.append(compiled)
        for batch_size in BATCH_SIZES:
            expected, *others = (timed(scorer, batch_size)[1] for scorer in scorers)  # warms them up, too
            for found in others:
                np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
            rounds = np.array([[timed(scorer, batch_size)[0] for scorer in scorers] for _ in range(repeats)])
            ratios = np.median(rounds[:, :1] / rounds[:, 1:], axis=0)
            cells = " | ".join(f"{ratio:.2f}×" for ratio in ratios)
            rows.append(f"| {name} | {batch_size} | {np.median(rounds[:, 0]) * 1e3:.1f} ms | {cells} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", choices=[BUNDLED, *BACKBONES], help="several times for several")
    parser.add_argument("--images", type=int, default=4, help="images in a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `sind-hf score` does
    images = make_images(options.images)
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    versions = ", ".join(f"{each.__name__} {each.__version__}" for each in (torch, transformers, onnxruntime))
    rounds = f"medians of {options.repeats} rounds"
    print(f"One image of {SIZE[0]}×{SIZE[1]} on one core ({machine}, {versions}; {rounds})\n")
    print("| backbone | batch | PyTorch | fused | onnxruntime |" + options.compile * " fused, torch.compile |")
    print("| --- | ---: | ---: | ---: | ---: |" + options.compile * " ---: |")
    for name in options.backbone or [BUNDLED, *BACKBONES]:
        print("\n".join(measure(name, images, options.repeats, options.compile)), flush=True)


if __name__ == "__main__":
    main()
