"""Every published command line: its folds, loss and network, and trainings of some on tiny sets and backbones."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from helpers.tiny_sets import make_set, save_tiny_clip, save_tiny_resnet, write_published
from sind_hf import SindConfig
from sind_hf.data.splits.library import read_folds, write_folds
from sind_hf.data.splits.splits import leave_one_out, random_split
from sind_hf.experiments.config import load_config
from sind_hf.experiments.protocols import build_folds
from sind_hf.experiments.records import load_records

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("train_test_iqa", ROOT / "scripts" / "train_test_iqa.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

COMMON = "--lr 1e-5 --warmup_epoch 5 --weight_decay 1e-5"
SIND = f"--epochs 35 {COMMON} --batch_size 64 --local_global --loss_type scale_shift --scene_sampling 2"
OTHERS = "koniq10k spaq livec live csiq bid cid2013"
ABLATION = f"--exp_type cross-set --train_dataset spaq --test_dataset {OTHERS}"
LEAVE_ONE_OUT = "--exp_type leave-one-out --train_dataset {0} --test_dataset {0}"
OTHER_CONFIGS = {"demo", "leave_one_out_agiqa3k_style"}  # of our own
SIX = "koniq10k livec bid kadid10k csiq live"

# published command (docs/reference/published_commands.md) -> folds, tested on, loss, scenes, batch, local branch
COMMANDS = {
    **{
        f"leave-one-out {name}": (
            f"--exp_type leave-one-out --train_dataset {name} --test_dataset {name} {SIND}",
            (["first", "second"], name, "scale_shift", 2, 64, "patch"),
        )
        for name in ("spaq", "koniq10k", "eva", "para")
    },
    **{
        f"cross-set {name}": (
            f"--exp_type cross-set --train_dataset {name} --test_dataset {OTHERS} {SIND}",
            ([name], OTHERS, "scale_shift", 2, 64, "patch"),
        )
        for name in ("spaq", "koniq10k")
    },
    "cross-set both": (
        f"--exp_type cross-set --train_dataset spaq koniq10k --test_dataset {OTHERS} --dataset_domain {SIND}",
        (["spaq+koniq10k"], OTHERS, "scale_shift", 2, 64, "patch"),
    ),
    "random-split six": (
        f"--exp_type random-split --train_dataset {SIX} --test_dataset {SIX} --dataset_domain {SIND}",
        (["1", "2"], SIX, "scale_shift", 2, 64, "patch"),
    ),
    "random-split eva": (
        f"--exp_type random-split --train_dataset eva --test_dataset eva {SIND.replace('35', '50')}",
        (["1", "2"], "eva", "scale_shift", 2, 64, "patch"),
    ),
    "para": (
        f"--exp_type cross-set --train_dataset para --test_dataset para {SIND.replace('35', '80')}",
        (["para"], "para", "scale_shift", 2, 64, "patch"),
    ),
    "global only, l1": (
        f"{ABLATION} --epochs 35 {COMMON} --batch_size 64 --loss_type l1",
        (["spaq"], OTHERS, "l1", 0, 64, "none"),
    ),
    "global only": (
        f"{ABLATION} --epochs 35 {COMMON} --batch_size 64 --loss_type scale_shift --scene_sampling 2",
        (["spaq"], OTHERS, "scale_shift", 2, 64, "none"),
    ),
    "no alignment": (
        f"{ABLATION} --epochs 35 {COMMON} --batch_size 64 --local_global --loss_type l1",
        (["spaq"], OTHERS, "l1", 0, 64, "patch"),
    ),
    "all global": (
        f"{ABLATION} {SIND} --all_global",
        (["spaq"], OTHERS, "scale_shift", 2, 64, "class"),
    ),
    "scenes and batch": (
        "--exp_type cross-set --train_dataset spaq --test_dataset koniq10k "
        f"--epochs 15 {COMMON} --batch_size 32 --local_global --loss_type scale_shift --scene_sampling 1",
        (["spaq"], "koniq10k", "scale_shift", 1, 32, "patch"),
    ),
    "resnet": (
        f"{LEAVE_ONE_OUT.format('spaq')} --epochs 15 --lr 4e-5 --warmup_epoch 5 --batch_size 128 "
        "--loss_type scale_shift --scene_sampling 4 --clip_model resnet",
        (["first", "second"], "spaq", "scale_shift", 4, 128, "none"),
    ),
    "resnet, l1": (
        f"{LEAVE_ONE_OUT.format('spaq')} --epochs 15 --lr 4e-5 --warmup_epoch 5 --batch_size 128 --loss_type l1 "
        "--clip_model resnet",
        (["first", "second"], "spaq", "l1", 0, 128, "none"),
    ),
    "global only, eva": (
        f"{LEAVE_ONE_OUT.format('eva')} --epochs 20 {COMMON} --batch_size 128 --loss_type scale_shift "
        "--scene_sampling 2",
        (["first", "second"], "eva", "scale_shift", 2, 128, "none"),
    ),
}

# One for each protocol, local branch and backbone; the others differ from these in names and numbers.
TRAINED = ("leave-one-out spaq", "cross-set both", "random-split eva", "no alignment", "all global", "resnet")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Images, the published layout of two folds a protocol, and two backbones."""
    root = tmp_path_factory.mktemp("tree")
    published = root / "published"
    for name in ("spaq", "koniq10k", "eva", "para", "livec", "bid", "cid2013", "live", "csiq", "kadid10k"):
        scenes = range(4) if name == "spaq" else ()
        manifest = make_set(root / "images", name, scenes, per_scene=2 if scenes else 4)
        for parent, names in (("for_leave_one_out", ("first", "second")), ("random_split", ("1", "2"))):
            if parent == "for_leave_one_out" and name not in ("spaq", "koniq10k", "eva", "para"):
                continue
            for number, fold in enumerate(names):
                tested = manifest.entries[number::3]
                sides = {"test": tested, "train": [entry for entry in manifest.entries if entry not in tested]}
                for side, entries in sides.items():
                    write_published(published / parent / name / fold / f"{side}.json", entries)
        write_published(published / "all" / f"{name}_all.json", manifest.entries)
        write_published(published / "for_cross_set" / "test" / f"{name}_test.json", manifest.entries[:3])
        write_published(published / "for_cross_set" / "train" / f"{name}_train.json", manifest.entries[3:])
    save_tiny_clip(root / "clip")
    save_tiny_resnet(root / "resnet")
    return root


def run(tree, output, line, *more, json_dir="published"):
    """The command line with a backbone, views and epochs of a size for tests, in this process."""
    words = line.split()
    backbone = "resnet" if "--clip_model" in words else "clip"
    if "--clip_model" in words:
        del words[words.index("--clip_model") : words.index("--clip_model") + 2]
    folders = ["--data_root", str(tree / "images"), "--json_dir", str(tree / json_dir), "--project_dir", str(output)]
    tiny = ["--clip_model", str(tree / backbone), "--input_size", "56", "--num_workers", "0", "--epochs", "1"]
    return script.main([*words, *folders, *tiny, *more])


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Tests of their own draw them."""
    monkeypatch.setattr("sind_hf.experiments.figures.draw_figures", lambda records, folder: [])


@pytest.mark.parametrize("name", COMMANDS)
def test_published_command(name, tree):
    line, (folds, tests, loss, scenes, batch, branch) = COMMANDS[name]
    flags = script.parse([*line.split(), "--json_dir", str(tree / "published"), "--data_root", str(tree / "images")])
    config = script.config_of(flags)
    args = config.training
    assert args.num_train_epochs == float(line.split("--epochs ")[1].split()[0])
    assert (args.loss_type, args.scene_sampling, args.per_device_train_batch_size) == (loss, scenes, batch)
    assert (config.model.local_branch, config.data.dataset_domain) == (branch, "--dataset_domain" in line)
    found = build_folds(config.data, config.experiment)
    assert [fold.name for fold in found] == folds
    assert all(list(fold.tests) == tests.split() for fold in found)


@pytest.mark.parametrize("name", TRAINED)
def test_published_command_trains(name, tree, tmp_path):
    line, (folds, tests, loss, scenes, batch, branch) = COMMANDS[name]
    assert run(tree, tmp_path / "run", line) == 0
    records = load_records(tmp_path / "run")
    assert [record["fold"] for record in records] == folds
    for record in records:
        assert list(record["metrics"]) == tests.split()
        assert all(-1 <= values["srcc"] <= 1 for values in record["metrics"].values() if values["srcc"] is not None)
        options = record["config"]["training"]
        assert (options["loss_type"], options["scene_sampling"]) == (loss, scenes)
        assert options["per_device_train_batch_size"] == batch
    (checkpoint, *_) = (tmp_path / "run").rglob("model.safetensors")
    config = SindConfig.from_pretrained(checkpoint.parent)
    assert (config.local_branch, config.loss_type, config.view_size) == (branch, loss, 56)
    resolved = load_config(tmp_path / "run" / "config.yaml")
    assert resolved.data.dataset_domain == ("--dataset_domain" in line)


def test_own_layout_gives_the_same_folds(tree, tmp_path, capsys):
    """Without published folds the script draws its own; with them written down it runs those."""
    manifest = make_set(None, "spaq", range(4), per_scene=2)
    (tmp_path / "json" / "spaq").mkdir(parents=True)
    manifest.save(tmp_path / "json" / "spaq" / "all.json")
    line = f"--exp_type leave-one-out --train_dataset spaq --test_dataset spaq {SIND}"
    assert run(tree, tmp_path / "run", line, "--dry_run", json_dir=str(tmp_path / "json")) == 0
    shown = capsys.readouterr().out
    assert [name in shown for name in ("test_for_100_Animal", "test_for_103_Indoor scene")] == [True, True]
    assert "scenes of the manifest" in shown and not (tmp_path / "run").exists()
    write_folds(leave_one_out(manifest), tmp_path / "json", "leave-one-out")
    assert len(read_folds(tmp_path / "json", "leave-one-out", "spaq")) == 4
    run(tree, tmp_path / "run", line, "--dry_run", json_dir=str(tmp_path / "json"))
    assert f"folds in {tmp_path / 'json'}" in capsys.readouterr().out
    write_folds(random_split(make_set(None, "eva", per_scene=10), splits=2), tmp_path / "json", "random-split")
    line = f"--exp_type random-split --train_dataset eva --test_dataset eva {SIND}"
    run(tree, tmp_path / "run", line, "--dry_run", json_dir=str(tmp_path / "json"))
    assert "eva 14" in capsys.readouterr().out
    capsys.readouterr()
    run(tree, tmp_path / "run", f"{line} --clip_model resnet50", "--dry_run", json_dir=str(tmp_path / "json"))
    assert "ignores the flag for ResNet" in capsys.readouterr().err


def test_every_flag_arrives():
    line = (
        "--clip_model openai/ViT-L-14 --clip_freeze --ema_decay 0.9 --train_dataset spaq koniq10k "
        "--test_dataset livec --input_size 448 --data_root d --json_dir j --dataset_domain --epochs 7 --batch_size 48 "
        "--lr 2e-5 --lr_ratio 10 --weight_decay 1e-4 --warmup_epoch 2 --mixed_precision fp16 --loss_type plcc+rank "
        "--scene_sampling 3 --local_global --exp_type cross-set --project_dir p/q"
    )
    source = script.config_of(script.parse(line.split())).source
    expected = {
        "model": {
            "backbone": "openai/clip-vit-large-patch14",
            "local_branch": "patch",
            "view_size": 448,
            "freeze_backbone": True,
        },
        "data": {
            "image_root": "d",
            "json_dir": "j",
            "train": ["spaq", "koniq10k"],
            "test": ["livec"],
            "dataset_domain": True,
            "liqe_splits": None,
        },
        "training": {
            "output_dir": "p/q",
            "loss_type": "plcc+rank",
            "scene_sampling": 3,
            "ema_decay": 0.9,
            "num_train_epochs": 7.0,
            "warmup_epochs": 2.0,
            "per_device_train_batch_size": 48,
            "learning_rate": 2e-5,
            "lr_ratio": 10.0,
            "weight_decay": 1e-4,
            "fp16": True,
            "bf16": False,
            "dataloader_num_workers": 4,
            "report_to": "none",
            "seed": 0,
        },
        "experiment": {"name": "q", "protocol": "cross-set", "k_folds": 0},
    }
    for group, values in expected.items():
        assert {name: source[group][name] for name in values} == values


def test_published_defaults():
    flags = script.parse(["--exp_type", "leave-one-out", "--train_dataset", "eva", "--test_dataset", "eva"])
    config = script.config_of(flags)
    args = config.training
    assert config.model.backbone == "openai/clip-vit-base-patch16" and config.model.local_branch == "none"
    assert (config.model.view_size, config.data.image_root, config.data.json_dir) == (224, "./data", "./data_json")
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.learning_rate) == (35, 64, 1e-5)
    assert (args.lr_ratio, args.weight_decay, args.warmup_epochs, args.ema_decay) == (1, 1e-5, 5, 0.99)
    assert (args.loss_type, args.scene_sampling, args.fp16, args.bf16) == ("l1", 0, False, False)
    assert not config.data.dataset_domain and not config.model.freeze_backbone


def test_eva_has_ten_folds_where_none_are_written(tree):
    line = "--exp_type random-split --train_dataset eva --test_dataset eva"
    assert script.config_of(script.parse(line.split())).experiment.k_folds == 10


def test_resuming_and_loading(tree, tmp_path, capsys):
    line = f"--exp_type leave-one-out --train_dataset spaq --test_dataset spaq {SIND}"
    assert run(tree, tmp_path / "run", line) == 0
    before = (tmp_path / "run" / "first" / "results.json").stat().st_mtime_ns
    elsewhere = ["--resume_from", str(tmp_path / "run"), "--project_dir", str(tmp_path / "unused")]
    assert run(tree, tmp_path / "unused", line, *elsewhere, "--start_epoch", "1") == 0
    assert (tmp_path / "run" / "first" / "results.json").stat().st_mtime_ns == before
    assert not (tmp_path / "unused").exists()
    # Its weights, for another run.
    started = ["--load_from", str(tmp_path / "run" / "first"), "--loss_type", "plcc"]
    assert run(tree, tmp_path / "new", line, *started) == 0
    assert yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())["model"]["checkpoint"].endswith("first")
    assert json.loads((tmp_path / "new" / "first" / "config.json").read_text())["loss_type"] == "plcc"
    capsys.readouterr()
    for flags, message in (
        (["--resume_from", str(tmp_path / "run"), "--start_epoch", "3"], "are of epoch 1: leave the flag out"),
        (["--start_epoch", "3"], "--start_epoch belongs to --resume_from"),
        (["--load_from", "sind.pth"], "sind-hf convert sind.pth FOLDER"),
        (["--load_from", str(tmp_path / "x"), "--project_dir", str(tmp_path / "y")], "there is no such checkpoint"),
        (["--loss_type", "l1"], "training.loss_type='scale_shift', this configuration has 'l1'"),
    ):
        assert run(tree, tmp_path / "run", line, *flags) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "flags", ["--loss_type nonsense", "--exp_type nonsense", "--all_global", "--mixed_precision fp8"]
)
def test_wrong_usage(flags, capsys):
    line = "--exp_type leave-one-out --train_dataset eva --test_dataset eva"
    with pytest.raises(SystemExit) as stop:
        script.main([*line.split(), *flags.split()])
    assert stop.value.code == 2
    assert capsys.readouterr().err


def test_the_page_has_every_flag_with_its_default():
    page = (ROOT / "docs" / "reference" / "published_commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--\w+)` \| (.+?) \|", page, re.MULTILINE)
    published, ours = (script.build_parser()._action_groups[index]._group_actions for index in (1, 2))
    expected = {}
    for action in published:
        if action.option_strings != ["-h", "--help"]:
            default = "none" if action.default is None else "off" if action.default is False else f"`{action.default}`"
            expected[action.option_strings[0]] = "required" if action.required else default
    numbers = {"`1.0`": "`1`", "`1e-05`": "`1e-5`"}
    assert dict(rows) == {flag: numbers.get(default, default) for flag, default in expected.items()}
    assert all(f"`{action.option_strings[0]}`" in page for action in ours)


def test_the_page_has_every_configuration_of_the_paper():
    page = (ROOT / "docs" / "reference" / "published_commands.md").read_text(encoding="utf-8")
    named = {name for row in re.findall(r"\| ([^|]+) \|$", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} - OTHER_CONFIGS <= named
