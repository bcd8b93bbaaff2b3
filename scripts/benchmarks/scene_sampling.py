"""What scene sampling makes of real scene labels: scenes per batch, images seen, images drawn again.

    python scripts/benchmarks/scene_sampling.py data_json/spaq/all.json data_json/koniq10k/all.json [--epochs 10]

Prints a Markdown table. The last column shuffles the groups of images freely, as the implementation published with
the paper does, instead of keeping the scenes of a batch apart.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sind_hf import Manifest, SceneBatchSampler, __version__
from sind_hf.data.sampling import scene_statistics

SCENES_PER_BATCH = (2, 4)
BATCH_SIZES = (64, 128)
HEADER = ("dataset", "k", "batch", "batches", "k distinct scenes", "images seen", "extra images", "groups shuffled")


def shuffled_share(scenes: Sequence[int], batch_size: int, scenes_per_batch: int, epochs: int, seed: int) -> float:
    """Share of batches with distinct scenes when the groups of all scenes are shuffled and dealt out."""
    group = batch_size // scenes_per_batch
    counts = Counter(scenes)
    groups = np.repeat(list(counts), [math.ceil(count / group) for count in counts.values()])
    distinct = batches = 0
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(groups)
        whole = len(order) // scenes_per_batch
        dealt = order[: whole * scenes_per_batch].reshape(whole, scenes_per_batch)
        distinct += sum(len(set(batch)) == scenes_per_batch for batch in dealt.tolist())
        batches += whole
    return distinct / batches


def row(manifest: Manifest, scenes_per_batch: int, batch_size: int, epochs: int, seed: int) -> tuple[str, ...]:
    """One line of the table; the worst of the epochs."""
    _, scenes = manifest.scene_classes()
    sampler = SceneBatchSampler(scenes, batch_size, scenes_per_batch, seed=seed)
    statistics = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        statistics.append(scene_statistics(sampler, scenes, scenes_per_batch))
    seen, extra = min(each.images_seen for each in statistics), max(each.extra_images for each in statistics)
    return (
        manifest.dataset,
        str(scenes_per_batch),
        str(batch_size),
        f"{len(sampler):,}",
        f"{min(each.distinct_share for each in statistics):.3f}",
        f"{seen:,} of {len(manifest):,}",
        f"{extra:,} ({extra / len(manifest):.1%})",
        f"{shuffled_share(scenes, batch_size, scenes_per_batch, epochs, seed):.3f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what scene sampling makes of the scenes of manifests.")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    manifests = [Manifest.load(path) for path in arguments.manifests]
    print("| " + " | ".join(HEADER) + " |")
    print("| --- |" + " ---: |" * (len(HEADER) - 1))
    for manifest in manifests:
        for scenes_per_batch in SCENES_PER_BATCH:
            for batch_size in BATCH_SIZES:
                cells = row(manifest, scenes_per_batch, batch_size, arguments.epochs, arguments.seed)
                print("| " + " | ".join(cells) + " |")
    print(
        f"\nWorst of {arguments.epochs} epochs, seed {arguments.seed}; sind-hf {__version__}, NumPy {np.__version__}."
    )


if __name__ == "__main__":
    main()
