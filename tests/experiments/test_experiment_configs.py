"""Every configuration of the repository: it parses, and its folds are those of the published run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_sets import make_set

from sind_hf.data.catalog import CATALOG
from sind_hf.experiments.config import load_config
from sind_hf.experiments.demo import DEMO
from sind_hf.experiments.protocols import build_folds
from sind_hf.pretraining.recipe import TRAININGS

CONFIGS = Path(__file__).parents[2] / "configs"
SIX = ["koniq10k", "livec", "bid", "kadid10k", "csiq", "live"]
OTHERS = ["koniq10k", "spaq", "livec", "live", "bid", "cid2013"]
ABLATION = ["koniq10k", "spaq", "livec", "live", "csiq", "bid", "cid2013"]
CLIP, RESNET = "openai/clip-vit-base-patch16", "microsoft/resnet-50"

# name -> folds, trained on, tested on, (local branch, loss, scenes, batch, epochs, learning rate, backbone)
RUNS = {
    "leave_one_out_spaq": (9, ["spaq"], ["spaq"], ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "leave_one_out_koniq10k": (8, ["koniq10k"], ["koniq10k"], ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "leave_one_out_eva": (6, ["eva"], ["eva"], ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "leave_one_out_para": (10, ["para"], ["para"], ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "cross_set_spaq": (1, ["spaq"], OTHERS, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "cross_set_koniq10k": (1, ["koniq10k"], OTHERS, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "cross_set_spaq_koniq10k": (1, ["spaq", "koniq10k"], OTHERS, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "random_split_six": (10, SIX, SIX, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "random_split_eva": (10, ["eva"], ["eva"], ("patch", "scale_shift", 2, 64, 50, 1e-5, CLIP)),
    "cross_set_para": (1, ["para"], ["para"], ("patch", "scale_shift", 2, 64, 80, 1e-5, CLIP)),
    "ablation_global_only_l1": (1, ["spaq"], ABLATION, ("none", "l1", 0, 64, 35, 1e-5, CLIP)),
    "ablation_global_only": (1, ["spaq"], ABLATION, ("none", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_no_alignment": (1, ["spaq"], ABLATION, ("patch", "l1", 0, 64, 35, 1e-5, CLIP)),
    "ablation_all_global": (1, ["spaq"], ABLATION, ("class", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_one_process": (1, ["spaq"], ABLATION, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_scenes_and_batch": (1, ["spaq"], ABLATION, ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_resnet50": (1, ["spaq"], ABLATION, ("none", "scale_shift", 4, 128, 15, 4e-5, RESNET)),
    "ablation_resnet50_l1": (1, ["spaq"], ABLATION, ("none", "l1", 0, 128, 15, 4e-5, RESNET)),
    "ablation_global_only_eva": (10, ["eva"], ["eva"], ("none", "scale_shift", 4, 128, 20, 1e-5, CLIP)),
}
DATASET_DOMAINS = {"cross_set_spaq_koniq10k", "random_split_six"}
SCENES = {"spaq": range(9), "koniq10k": range(8), "eva": range(1, 7), "para": range(10)}


@pytest.fixture(scope="module")
def json_dir(tmp_path_factory):
    """Small manifests of every data set, with as many scenes as the real ones have."""
    folder = tmp_path_factory.mktemp("json")
    for name, facts in CATALOG.items():
        manifest = make_set(
            None, name, SCENES.get(name, ()), per_scene=10, references=10 if facts.reference_based else 0
        )
        (folder / name).mkdir()
        manifest.save(folder / name / "all.json")
    return folder


def test_every_file_is_of_a_published_run_or_of_one_of_ours():
    ours = {"demo", "real_opinions", *(training.config for training in TRAININGS.values())}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*ours, *RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_run(name, json_dir):
    count, train, tests, recipe = RUNS[name]
    config = load_config(CONFIGS / f"{name}.yaml", [f"json_dir={json_dir}"])
    args = config.training
    assert recipe == (
        config.model.local_branch,
        args.loss_type,
        args.scene_sampling,
        args.per_device_train_batch_size,
        args.num_train_epochs,
        args.learning_rate,
        config.model.backbone,
    )
    assert (args.weight_decay, args.warmup_epochs, args.ema_decay, args.eval_views) == (1e-5, 5, 0.99, "nine")
    assert args.output_dir == f"runs/{name}" and config.experiment.name == name
    assert config.data.dataset_domain == (name in DATASET_DOMAINS)
    folds = build_folds(config.data, config.experiment)
    assert len(folds) == count
    for fold in folds:
        assert [manifest.dataset for manifest in fold.train] == train
        assert list(fold.tests) == tests
        if name in DATASET_DOMAINS:
            scenes = {entry.scene for manifest in fold.train for entry in manifest.entries}
            own = {domain for domain in CATALOG["spaq"].domains.values() if "spaq" in train}
            assert scenes == own | set(train) - {"spaq"}


def test_grid_of_scenes_and_batch_sizes(json_dir):
    for scenes, batch in ((1, 32), (4, 64), (8, 128)):
        overrides = [f"scene_sampling={scenes}", f"per_device_train_batch_size={batch}", "output_dir=runs/grid"]
        args = load_config(CONFIGS / "ablation_scenes_and_batch.yaml", overrides).training
        assert (args.scene_sampling, args.per_device_train_batch_size) == (scenes, batch)


def test_demo_is_that_of_the_package():
    assert yaml.safe_load((CONFIGS / "demo.yaml").read_text()) == DEMO
