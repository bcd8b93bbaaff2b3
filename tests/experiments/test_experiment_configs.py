"""Every configuration of the repository: it parses, and its folds are those of the published run."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest

from helpers.tiny_sets import make_set
from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.experiments.config import load_config
from sind_hf.experiments.protocols import build_folds

ROOT = Path(__file__).parents[2]
CONFIGS, DOCUMENT = ROOT / "configs", ROOT / "docs" / "reference" / "published_commands.md"
spec = importlib.util.spec_from_file_location("train_test_iqa", ROOT / "scripts" / "train_test_iqa.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

TRAINING_KEYS = (
    "loss_type",
    "scene_sampling",
    "per_device_train_batch_size",
    "num_train_epochs",
    "learning_rate",
    "lr_ratio",
    "weight_decay",
    "warmup_epochs",
    "ema_decay",
    "fp16",
    "bf16",
)
SIX = ["koniq10k", "livec", "bid", "kadid10k", "csiq", "live"]
OTHERS = ["koniq10k", "spaq", "livec", "live", "csiq", "bid", "cid2013"]
CLIP, RESNET = "openai/clip-vit-base-patch16", "microsoft/resnet-50"
LEAVE, CROSS, SPLIT = "leave-one-out", "cross-set", "random-split"
SIND = ("patch", "scale_shift", 2, 64, 35, 1e-5, CLIP)

# name -> protocol, processes, folds, trained on, tested on,
#         (local branch, loss, scenes, batch per process, epochs, learning rate, backbone)
RUNS = {
    "leave_one_out_spaq": (LEAVE, 2, 9, ["spaq"], ["spaq"], SIND),
    "leave_one_out_koniq10k": (LEAVE, 2, 8, ["koniq10k"], ["koniq10k"], SIND),
    "leave_one_out_eva": (LEAVE, 2, 6, ["eva"], ["eva"], SIND),
    "leave_one_out_para": (LEAVE, 2, 10, ["para"], ["para"], SIND),
    "ablation_global_only_eva": (LEAVE, 1, 6, ["eva"], ["eva"], ("none", "scale_shift", 4, 128, 20, 1e-5, CLIP)),
    "ablation_global_only_l1_eva": (LEAVE, 1, 6, ["eva"], ["eva"], ("none", "l1", 0, 128, 15, 1e-5, CLIP)),
    "ablation_resnet50": (LEAVE, 1, 9, ["spaq"], ["spaq"], ("none", "scale_shift", 4, 128, 15, 4e-5, RESNET)),
    "ablation_resnet50_l1": (LEAVE, 1, 9, ["spaq"], ["spaq"], ("none", "l1", 0, 128, 15, 4e-5, RESNET)),
    "ablation_no_alignment_leave_one_out": (LEAVE, 2, 9, ["spaq"], ["spaq"], ("patch", "l1", 0, 64, 15, 1e-5, CLIP)),
    "cross_set_spaq": (CROSS, 2, 1, ["spaq"], OTHERS, SIND),
    "cross_set_koniq10k": (CROSS, 2, 1, ["koniq10k"], OTHERS, SIND),
    "cross_set_spaq_koniq10k_scenes": (CROSS, 2, 1, ["spaq", "koniq10k"], OTHERS, SIND),
    "cross_set_spaq_koniq10k": (CROSS, 2, 1, ["spaq", "koniq10k"], OTHERS, SIND),
    "ablation_one_process": (CROSS, 1, 1, ["spaq", "koniq10k"], OTHERS, SIND),
    "random_split_six": (SPLIT, 2, 10, SIX, SIX, SIND),
    "random_split_eva": (SPLIT, 2, 10, ["eva"], ["eva"], ("patch", "scale_shift", 2, 64, 50, 1e-5, CLIP)),
    "cross_set_para": (CROSS, 2, 1, ["para"], ["para"], ("patch", "scale_shift", 2, 64, 80, 1e-5, CLIP)),
    "ablation_global_only_l1": (CROSS, 2, 1, ["spaq"], OTHERS, ("none", "l1", 0, 64, 35, 1e-5, CLIP)),
    "ablation_global_only": (CROSS, 2, 1, ["spaq"], OTHERS, ("none", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_no_alignment": (CROSS, 2, 1, ["spaq"], OTHERS, ("patch", "l1", 0, 64, 35, 1e-5, CLIP)),
    "ablation_all_global": (CROSS, 2, 1, ["spaq"], OTHERS, ("class", "scale_shift", 2, 64, 35, 1e-5, CLIP)),
    "ablation_resnet50_l1_cross_set": (CROSS, 1, 1, ["spaq"], OTHERS, ("none", "l1", 0, 64, 35, 1e-5, RESNET)),
    "ablation_resnet50_cross_set": (CROSS, 1, 1, ["spaq"], OTHERS, ("none", "scale_shift", 2, 64, 35, 1e-5, RESNET)),
    "ablation_scenes_and_batch": (
        CROSS,
        1,
        1,
        ["spaq"],
        ["koniq10k"],
        ("patch", "scale_shift", 2, 64, 15, 1e-5, CLIP),
    ),
}
DATASET_DOMAINS = {"cross_set_spaq_koniq10k", "ablation_one_process", "random_split_six"}
HALF_PRECISION = {"ablation_scenes_and_batch"}
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
    ours = {"demo", "leave_one_out_agiqa3k_style"}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*ours, *RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_run(name, json_dir):
    protocol, processes, count, train, tests, recipe = RUNS[name]
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
    assert config.experiment.protocol == protocol
    assert (args.fp16, args.bf16) == (name in HALF_PRECISION, False)
    assert (args.lr_ratio, config.model.view_size, config.model.freeze_backbone) == (1, None, False)  # the backbone's
    launcher = "accelerate launch --num_processes 2 -m sind_hf.cli" if processes == 2 else "sind-hf"
    comment = (CONFIGS / f"{name}.yaml").read_text().partition("model:")[0]
    assert f"#   {launcher} experiment {protocol} configs/{name}.yaml\n" in comment
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


def test_grid_of_scenes_and_images_per_scene(json_dir):
    """Every pair of the published grid divides among its processes, which share the scenes and the batch."""
    loop = DOCUMENT.read_text().partition("for k in")[2].partition("```")[0]
    assert "P=$(( (k * n + 63) / 64 ))" in loop
    assert "scene_sampling=$((k / P)) per_device_train_batch_size=$((k * n / P))" in loop
    for scenes in (1, 2, 4, 8):
        for images in (1, 2, 4, 8, 16, 32, 64):
            processes = math.ceil(scenes * images / 64)
            share, batch = scenes // processes, scenes * images // processes
            assert share * processes == scenes and batch == share * images and batch <= 64
    overrides = ["scene_sampling=4", "per_device_train_batch_size=64", "output_dir=runs/k8_n16"]
    args = load_config(CONFIGS / "ablation_scenes_and_batch.yaml", overrides).training
    assert (args.scene_sampling, args.per_device_train_batch_size, args.fp16) == (4, 64, True)


def documented_runs():
    """The rows of the table of runs: configuration -> number of processes, flags."""
    text = DOCUMENT.read_text()
    short = dict(re.findall(r"`([CST])` (?:is|stands for the common flags)\s+`([^`]+)`", text))
    assert set(short) == {"C", "S", "T"}
    rows = re.findall(r"^\|[^|]+\| ([^|]+) \| `(--exp_type[^`]+)` \| `(\w+)` \|$", text, re.MULTILINE)
    return {
        name: (processes, " ".join(short.get(word, word) for word in flags.split())) for processes, flags, name in rows
    }


def test_documented_flags_are_the_configurations():
    runs = documented_runs()
    assert set(runs) == set(RUNS)
    for name, (processes, line) in runs.items():
        assert processes == ("⌈kn/64⌉" if name == "ablation_scenes_and_batch" else str(RUNS[name][1])), name
        flags, config = script.config_of(script.parse(line.split())), load_config(CONFIGS / f"{name}.yaml")
        assert (flags.model.backbone, flags.model.local_branch) == (
            config.model.backbone,
            config.model.local_branch,
        ), name
        assert (flags.data.train, flags.data.dataset_domain) == (config.data.train, config.data.dataset_domain), name
        assert flags.data.test == (config.data.test or config.data.train), name
        assert flags.experiment.protocol == config.experiment.protocol, name
        assert flags.experiment.k_folds == config.experiment.k_folds, name
        for key in TRAINING_KEYS:
            assert getattr(flags.training, key) == getattr(config.training, key), (name, key)


def test_list_of_differences():
    """Every known difference from the published code is in one list."""
    text = (DOCUMENT.parents[1] / "explanation" / "method.md").read_text(encoding="utf-8")
    differences = text.partition("## Where the published code differs")[2]
    for words in (
        "36 epochs for `--epochs 35`",
        "| `rank` loss | always 0",
        "*s* + 32",
        "CLIP **ViT-B/32**",
        "repeat a scene at k=2",
        "global view to both branches",
        "`--local_global` with ResNet-50",
        "best epoch of each test set",
    ):
        assert words in differences, words
