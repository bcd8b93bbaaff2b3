"""All figures for one GPU in one run: training steps, training through SindTrainer, scoring, memory, equality.

    python scripts/benchmarks/gpu.py --output gpu [--minutes 7] [--workers 16]

Writes OUTPUT.md and OUTPUT.json after every figure, so that a run that is cut short keeps what it has. A figure for
which no time is left is reported as such. `scripts/benchmarks/gpu_wheels.sh` collects the packages for a machine
without a network. With `--tiny` the same code runs on a CPU in seconds, on a tiny network; its figures mean nothing.

"Published" is written from its description: two backbone calls, attention without a fused kernel, normalized pixels
as input. Its default is float32; "autocast" is the same in bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from epoch import SCENES, train
from rounds import machine, make_photographs
from train_step import BACKBONES, PublishedSteps

from sind_hf import SindConfig, SindImageProcessor, SindModel, score_images
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.prepared.folder import load_prepared
from sind_hf.data.prepared.prepare import prepare
from sind_hf.losses import by_scene
from sind_hf.scoring.images import PreparedRow, prepared_place

BACKBONES["tiny"] = {
    "model_type": "clip_vision_model",
    "patch_size": 8,
    "image_size": 56,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}
COMPARED = 8  # images whose scores are compared
MIB = 2**20


class Way(NamedTuple):
    """A way to compute the same scores."""

    name: str
    published: bool = False
    half: bool = False
    fused: bool = False
    compiled: bool = False
    tolerance: float = 1e-3  # of the standard deviation of the scores


WAYS = (
    Way("published, float32", published=True),
    Way("published, autocast", published=True, half=True, tolerance=0.1),
    Way("one call, fused attention, float32"),
    Way("the same, bfloat16", half=True, tolerance=0.1),
    Way("the same, fused optimizer", half=True, fused=True, tolerance=0.1),
    Way("the same, compiled", half=True, fused=True, compiled=True, tolerance=0.1),
)


@dataclass
class Report:
    """The figures so far, and the time that is left for more.

    Attributes:
        output: Path of both files, without extension.
        end: When to stop, by `time.monotonic`.
        tables: Rows by the title of their table.
    """

    output: Path
    end: float
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def measure(
        self, table: str, labels: dict[str, Any], seconds: float, action: Callable[[], dict[str, Any]]
    ) -> None:
        """Add a row, and write both files.

        Args:
            table: Title of the table.
            labels: First cells of the row.
            seconds: How long the action may take; it is left out if less time remains.
            action: Returns the other cells.
        """
        row = dict(labels)
        if time.monotonic() + seconds > self.end:
            row["note"] = "not measured: no time left"
        else:
            try:
                row |= action()
            except torch.OutOfMemoryError:
                row["note"] = "out of memory"
            except Exception as error:  # one failure must not cost the other figures
                row["note"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        self.tables.setdefault(table, []).append(row)
        self.write()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def write(self) -> None:
        """Write OUTPUT.json and OUTPUT.md."""
        document = {"machine": machine(), "tables": self.tables}
        self.output.with_suffix(".json").write_text(json.dumps(document, indent=1))
        lines = [f"Measured on: {machine()}", ""]
        for title, rows in self.tables.items():
            columns = list(dict.fromkeys(name for row in rows for name in row))
            lines += [f"## {title}", "", "| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
            lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows] + [""]
        self.output.with_suffix(".md").write_text("\n".join(lines))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.1f}"
        if isinstance(value, float) and value >= 10
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def build(way: Way, backbone: str, device: str) -> tuple[SindModel, Callable[..., torch.Tensor]]:
    """Return a model, with the same weights for every way, and its forward pass."""
    torch.manual_seed(0)
    model = SindModel(SindConfig(vision_config=dict(BACKBONES[backbone]))).to(device)
    forward = PublishedSteps(model) if way.published else lambda views: model(*views).quality
    if way.compiled:
        model.compile()
    return model, forward


def random_views(batch: int, side: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Blocks of one color: unlike noise, one image differs from the next as a whole.
    blocks = torch.randint(0, 256, (2, batch, 3, 8, 8), generator=generator, dtype=torch.uint8)
    views = blocks.repeat_interleave(side // 8, -1).repeat_interleave(side // 8, -2).to(device)
    return views[0], views[1]


def autocast(way: Way, device: str) -> Any:
    return torch.autocast(device, torch.bfloat16) if way.half else nullcontext()


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rate(action: Callable[[], object], batch: int, seconds: float, warm_up: int) -> dict[str, Any]:
    """Repeat an action for some seconds, at least three times; return images per second and the peak of memory."""
    for _ in range(warm_up):
        action()
    synchronize()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start, times = time.perf_counter(), []
    while len(times) < 3 or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        action()
        synchronize()
        times.append(time.perf_counter() - began)
    memory = {"peak MiB": torch.cuda.max_memory_allocated() / MIB} if torch.cuda.is_available() else {}
    return {"images/s": batch / float(np.median(times)), **memory}


def training_step(way: Way, backbone: str, batch: int, device: str, seconds: float) -> dict[str, Any]:
    model, forward = build(way, backbone, device)
    model.train()
    views = random_views(batch, int(model.config.view_size or 0), device)
    target = torch.rand(batch, generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=way.fused and device == "cuda")

    def step() -> None:
        with autocast(way, device):
            quality = forward(views)
        by_scene(quality.float(), target, None, "scale_shift").backward()
        optimizer.step()
        optimizer.zero_grad()

    return rate(step, batch, seconds, warm_up=3)


def inference(way: Way, backbone: str, batch: int, device: str, seconds: float) -> dict[str, Any]:
    model, forward = build(way, backbone, device)
    model.eval()
    views = random_views(batch, int(model.config.view_size or 0), device)

    def step() -> None:
        with torch.inference_mode(), autocast(way, device):
            forward(views)

    return rate(step, batch, seconds, warm_up=3)


def equality(way: Way, backbone: str, device: str) -> dict[str, Any]:
    """Compare the scores of a way with those of the published one in float32."""
    scores = []
    for each in (WAYS[0], way):
        model, forward = build(each, backbone, device)
        model.eval()
        with torch.inference_mode(), autocast(each, device):
            scores.append(forward(random_views(COMPARED, int(model.config.view_size or 0), device)).float().cpu())
    difference = float((scores[1] - scores[0]).abs().max() / scores[0].std())
    return {"largest difference / deviation": difference, "equal": difference <= way.tolerance}


def scoring(backbone: str, images: Any, views: Any, device: str, batch: int, workers: int, way: Way) -> dict[str, Any]:
    """Images per second of `score_images`; the first batch is left out."""
    model, _ = build(way, backbone, device)
    model.to(torch.bfloat16 if way.half else torch.float32).eval()
    side = int(model.config.view_size or 0)
    processor = SindImageProcessor(size={"height": side, "width": side})
    rows = score_images(model, processor, images, views=views, batch_size=batch, workers=workers)
    began, count = None, 0
    for number, _ in enumerate(rows, start=1):
        if number == batch:
            synchronize()
            began = time.perf_counter()
        elif began is not None:
            count += 1
    return {"images/s": count / (time.perf_counter() - (began or 0))}


def data(root: Path, count: int, size: tuple[int, int], side: int, workers: int) -> tuple[Manifest, Path]:
    """Write JPEG files, and prepare them; return their manifest and the prepared folder."""
    paths = make_photographs(root, size, min(count, 64))
    kinds = [path.read_bytes() for path in paths]
    entries = []
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(kinds[number % len(kinds)])
        entries.append(ManifestEntry(f"{number}.jpg", float(number), f"scene {number % SCENES}", number % SCENES))
    manifest = Manifest("generated", entries)
    prepare(manifest, root, root / "prepared", view_size=side, workers=workers)
    return manifest, root / "prepared"


def backbones_and_batches(tiny: bool) -> Iterator[tuple[str, int]]:
    yield from [("tiny", 4)] if tiny else [(name, batch) for name in ("vit-b16", "vit-l14") for batch in (64, 256)]


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu"), help="path of both files, without extension")
    parser.add_argument("--minutes", type=float, default=7.0, help="when to stop")
    parser.add_argument("--workers", type=int, default=16, help="processes that load images")
    parser.add_argument("--tiny", action="store_true", help="check the script itself, on a tiny network")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.tiny:
        raise SystemExit("error: torch finds no GPU; --tiny checks the script itself")
    tiny = options.tiny
    seconds, allowance, compile_allowance = (0.0, 0.0, 0.0) if tiny else (2.0, 8.0, 60.0)
    ways = WAYS[:-1] if tiny else WAYS
    workers = 0 if tiny else options.workers
    report = Report(options.output, time.monotonic() + 60 * options.minutes)
    first = "tiny" if tiny else "vit-b16"
    best, half = ways[-1], WAYS[3]
    for way in ways:
        cost = compile_allowance if way.compiled else allowance
        report.measure("Equality of scores", {"way": way.name}, cost, lambda way=way: equality(way, first, device))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        count, size, side = (16, (120, 90), 56) if tiny else (4096, (1024, 768), 224)
        manifest, prepared = data(root, count, size, side, workers)
        # What is compared with the goals comes first.
        for batch in (4,) if tiny else (64, 256):
            run = argparse.Namespace(
                backbone=first,
                batch_size=batch,
                steps=1 if tiny else 40,
                workers=workers,
                bf16=not tiny,
                compile=not tiny,
            )
            for source in ("prepared data", "JPEG files"):
                dataset = load_prepared(prepared) if source == "prepared data" else manifest.to_dataset(root)

                def trainer(run: Any = run, dataset: Any = dataset) -> dict[str, Any]:
                    speed, wait = train(dataset, run, root / "run", side)
                    return {"images/s": speed, "data wait": f"{wait:.0%}"}

                labels = {"backbone": first, "batch": batch, "from": source}
                report.measure("Training through SindTrainer", labels, compile_allowance, trainer)
        images = [PreparedRow(*prepared_place(str(prepared)), row) for row in range(len(manifest))]
        files = [str(root / entry.image) for entry in manifest.entries]
        for views in ("center", "nine"):
            for source, given in (("prepared data", images), ("JPEG files", files)):
                labels = {"backbone": first, "views": views, "from": source, "loaders": workers}
                share = given if views == "center" else given[: max(len(given) // 8, 5)]
                report.measure(
                    "Scoring",
                    labels,
                    3 * allowance,
                    lambda share=share, views=views: scoring(
                        first, share, views, device, 4 if tiny else 64, workers, half
                    ),
                )
        for backbone, batch in backbones_and_batches(tiny):
            for title, action in (("Training steps", training_step), ("Forward passes", inference)):
                for way in ways:
                    cost = compile_allowance if way is best and way.compiled else allowance
                    report.measure(
                        title,
                        {"backbone": backbone, "batch": batch, "way": way.name},
                        cost,
                        lambda way=way, action=action, b=backbone, n=batch: action(way, b, n, device, seconds),
                    )
    print(report.output.with_suffix(".md").read_text())
    if any(row.get("equal") is False for row in report.tables["Equality of scores"]):
        raise SystemExit("error: the scores of the ways differ by more than their tolerances")


if __name__ == "__main__":
    main()
