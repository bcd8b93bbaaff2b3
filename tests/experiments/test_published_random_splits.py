"""Trainings on the published random splits of LIVE and CSIQ, whose files hold flipped scores."""

from __future__ import annotations

import numpy as np

from helpers.tiny_sets import make_config, write_image, write_published
from sind_hf.data.manifests.manifest import ManifestEntry
from sind_hf.experiments.runner import run_experiment

KINDS = {"live": "LIVE/jp2k/img{0}.bmp", "csiq": "CSIQ/dst_imgs/awgn/ref{1}.AWGN.{2}.png"}
TOP = {"live": 114.4, "csiq": 1.0}


def published_set(root, name, count=60):
    """Images from good to bad with flipped scores, split into train and test by every fifth reference."""
    sides = {"train": [], "test": []}
    domain = {"live": 700, "csiq": 800}[name]
    for index, number in enumerate(np.random.default_rng(domain).permutation(count).tolist()):
        reference, level = divmod(number, 5)
        quality = 1 - (level + reference / (count / 5)) / 5
        image = KINDS[name].format(number, reference, level + 1)
        write_image(root / "images" / image, quality, index)
        side = "test" if reference % 5 == 0 else "train"
        sides[side].append(ManifestEntry(image, TOP[name] * quality, None, domain))
    for side, entries in sides.items():
        write_published(root / "json" / "random_split" / name / "1" / f"{side}.json", entries)


def test_a_model_learns_the_right_way_round(tmp_path):
    for name in ("live", "csiq"):
        published_set(tmp_path, name)
    config = make_config(
        tmp_path / "run",
        tmp_path / "images",
        data={"json_dir": str(tmp_path / "json"), "train": ["live", "csiq"], "test": ["live", "csiq"]}
        | {"dataset_domain": True},
        training={"per_device_train_batch_size": 16, "num_train_epochs": 2},
        experiment={"protocol": "random-split", "name": "published"},
    )
    (record,) = run_experiment(config)
    assert record["metrics"]["live"]["srcc"] > 0.8
    assert record["metrics"]["csiq"]["srcc"] > 0.8
