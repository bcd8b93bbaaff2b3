"""Memory and speed of long scoring jobs: the same command with few and with many images.

    python scripts/benchmarks/scoring.py [--images 1000 10000] [--workers 1] [--source folder|parquet]

Prints a Markdown table. Images are small and the network is tiny, so that what a job itself costs shows. Memory is
the highest sum over the process and its loaders of what each has resident; pages that they share are counted in each.
The time runs from the first moment of scoring to the end of the process. Two columns are measured apart: the peak of
Python's own memory while a job without a model lists, deals and writes that many images, and the seconds of the whole
command, start included, that resumes a job whose last image alone is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch
import transformers
from PIL import Image
from rounds import machine

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.checkpoints import load_scorer
from sind_hf.scoring.job import run_job
from sind_hf.scoring.scorer import ScoredImage

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
}
VIEW_SIZE = 56
KINDS = 50  # different images; the others are further names of these files
MIB = 2**20


def make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    SindModel(SindConfig(vision_config=dict(RESNET), view_size=VIEW_SIZE)).save_pretrained(folder)
    SindImageProcessor(size=VIEW_SIZE).save_pretrained(folder)


def make_images(folder: Path, count: int, source: str) -> Path:
    """Write `count` images as files, or into one Parquet file; returns what to score."""
    rng = np.random.default_rng(0)
    (folder / "kinds").mkdir(parents=True)
    kinds = []
    for number in range(min(KINDS, count)):
        kinds.append(folder / "kinds" / f"{number}.jpg")
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        small.resize((96, 72), Image.Resampling.BICUBIC).save(kinds[-1])
    if source == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        encoded = [{"bytes": kind.read_bytes(), "path": None} for kind in kinds]
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([encoded[number % len(encoded)] for number in range(count)], image)
        pq.write_table(pa.table({"image": column}), folder / "images.parquet", row_group_size=1000)
        return folder / "images.parquet"
    for number in range(count):
        path = folder / "images" / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(kinds[number % len(kinds)], path)
    return folder / "images"


def resident(process: psutil.Process) -> int:
    """Bytes that a process and its children have in memory."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # ended while it was looked at
        return 0
    return total


def score(images: Path, checkpoint: Path, output: Path, workers: int, flags: Sequence[str] = ()) -> tuple[int, float]:
    """Run the command; returns its highest memory in bytes, and its seconds of scoring."""
    command = [sys.executable, "-m", "sind_hf.cli", "score", str(images), "--model", str(checkpoint)]
    command += ["--output", str(output), "--workers", str(workers), "--batch-size", "32", "--device", "cpu", *flags]
    started, peak, part = None, 0, output.with_name(output.name + ".part")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            if started is None and part.exists():
                started = time.monotonic()
            peak = max(peak, resident(process))
            time.sleep(0.05)
    if running.returncode:
        raise SystemExit(f"the command failed with exit code {running.returncode}")
    return peak, time.monotonic() - (started or time.monotonic())


def bytes_of_a_name(images: Path, output: Path, count: int) -> float:
    """Peak of Python's own memory for one image, in a job whose scores cost nothing."""
    config = SindConfig(vision_config=dict(RESNET), view_size=VIEW_SIZE)
    model, processor = SindModel(config).eval(), SindImageProcessor(size=VIEW_SIZE)
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    rows = run_job(
        model,
        processor,
        [images],
        output=output,
        engine=lambda stream: ((image, ScoredImage(image.name, 1.0)) for image in stream),
    )
    for _ in rows:
        pass
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak / count


def seconds_to_resume(images: Path, checkpoint: Path, output: Path, count: int) -> float:
    """Seconds of the command that finishes a job of which one image is missing."""
    rows = run_job(
        *load_scorer(str(checkpoint), device="cpu"),
        [images],
        output=output,
        engine=lambda stream: ((image, ScoredImage(image.name, 1.0)) for image in stream),
    )
    for _ in islice(rows, count - 1):
        pass
    rows.close()
    command = [sys.executable, "-m", "sind_hf.cli", "score", str(images), "--model", str(checkpoint), "--resume"]
    started = time.monotonic()
    subprocess.run([*command, "--output", str(output), "--device", "cpu"], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000], help="numbers of images")
    parser.add_argument("--workers", type=int, default=1, help="loader processes")
    parser.add_argument("--source", choices=("folder", "parquet"), default="folder", help="where images are")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    print(f"`sind-hf score` of a {options.source}, {options.workers} loader processes ({machine()})\n")
    print("| images | peak memory | images/s | bytes an image in the job's lists | seconds to resume |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_checkpoint(folder / "model")
            images = make_images(folder, count, options.source)
            peak, seconds = score(images, folder / "model", folder / "scores.csv", options.workers)
            if count == options.images[0]:  # what is imported on the way would be counted
                bytes_of_a_name(images, folder / "first.csv", count)
            names = bytes_of_a_name(images, folder / "again.csv", count)
            resumed = seconds_to_resume(images, folder / "model", folder / "resumed.csv", count)
        cells = [f"{count:,}", f"{peak / MIB:.0f} MiB", f"{count / seconds:.0f}", f"{names:.0f}", f"{resumed:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
