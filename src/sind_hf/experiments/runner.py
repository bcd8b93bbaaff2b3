"""One configured training run: model and data are built, trained, tested, and recorded."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import datasets
import torch
import transformers
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint, set_seed

from sind_hf.configuration_sind import SindConfig
from sind_hf.data.manifest import Manifest
from sind_hf.experiments.config import DataOptions, ModelOptions, RunConfig
from sind_hf.experiments.evaluation import write_json
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.scoring.checkpoints import load_checkpoint
from sind_hf.training.trainer import SindTrainer
from sind_hf.version import __version__

RESULTS = "results.json"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class RunData:
    """The sets of one run.

    Attributes:
        train: Pictures, scores (higher better) and scenes to train on.
        tests: What to test on, by name.
        score_range: Range of the training scores; None where the training sets do not share one.
    """

    train: Dataset
    tests: dict[str, Dataset]
    score_range: tuple[float, float] | None


def build_model(options: ModelOptions, loss_type: str, seed: int) -> tuple[SindModel, SindImageProcessor]:
    """Make the model that a run starts from, and its image processor.

    Args:
        options: The group `model` of a configuration.
        loss_type: Stored with the checkpoint.
        seed: Of the fresh weights.

    Raises:
        ValueError: When a checkpoint cannot be loaded or options contradict the backbone.
    """
    set_seed(seed)
    if options.checkpoint:
        model, processor = load_checkpoint(options.checkpoint, device="cpu")
        model.config.loss_type = loss_type
        if options.freeze_backbone:
            model.freeze_backbone()
        return model, processor
    settings: dict[str, Any] = {
        "local_branch": options.local_branch,
        "freeze_backbone": options.freeze_backbone,
        "loss_type": loss_type,
        **({"view_size": options.view_size} if options.view_size else {}),
    }
    if options.backbone:
        try:
            model = SindModel.from_backbone(options.backbone, SindConfig(**settings))
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model.backbone {options.backbone!r} cannot be loaded: {reason}") from None
    else:
        model = SindModel(SindConfig(vision_config=options.vision_config, **settings))
    side = int(model.config.view_size or 224)
    processor = SindImageProcessor(
        size={"height": side, "width": side}, resize_backend=options.resize_backend, views="center"
    )
    return model, processor


def build_data(options: DataOptions) -> RunData:
    """Read the manifests of a run.

    Raises:
        ValueError: When a manifest or pictures are missing, or a scene to hold out is unknown.
    """
    if not options.train:
        raise ValueError("data.train names no manifest: nothing to train on.")
    train = [Manifest.load(path) for path in options.train]
    tests = {manifest.dataset: manifest for manifest in map(Manifest.load, options.test)}
    if options.hold_out_scenes:
        held_out = set(options.hold_out_scenes)
        known = {entry.scene for manifest in train for entry in manifest.entries}
        if unknown := held_out - known:
            names = ", ".join(sorted(map(str, known)))
            raise ValueError(f"data.hold_out_scenes: no scene {', '.join(sorted(unknown))}; there are {names}.")
        for manifest in train:
            rest = manifest.filter(lambda entry: entry.scene in held_out)
            if len(rest):
                tests[f"{manifest.dataset}_held_out"] = rest
        train = [manifest.filter(lambda entry: entry.scene not in held_out) for manifest in train]
    for manifest in [*train, *tests.values()]:
        _require_images(manifest, options.image_root)
    ranges = {manifest.oriented_range() for manifest in train}
    sets = [manifest.to_dataset(options.image_root) for manifest in train]
    return RunData(
        train=sets[0] if len(sets) == 1 else _join(sets),
        tests={name: manifest.to_dataset(options.image_root) for name, manifest in tests.items()},
        score_range=ranges.pop() if len(ranges) == 1 else None,
    )


def run_training(
    config: RunConfig, *, resume: bool = False, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, Any]:
    """Train as a configuration says, test, and save the checkpoint with its record.

    The output folder gets the checkpoint, `config.yaml` (resolved), `results.json` (metrics, versions, times).

    Args:
        config: From `load_config`.
        resume: Go on from the last checkpoint in the output folder, where there is one.
        callbacks: Further callbacks of the Trainer, such as a progress display.

    Returns:
        The record that `results.json` holds.

    Raises:
        ValueError: On unusable configuration or data; nothing has been trained then.
    """
    started = time.time()
    args = config.training
    data = build_data(config.data)
    args.score_range = None if data.score_range is None else list(data.score_range)
    args.calibrate = args.calibrate and data.score_range is not None
    model, processor = build_model(config.model, args.loss_type, args.seed)
    trainer = SindTrainer(
        model=model,
        args=args,
        train_dataset=data.train,
        eval_dataset=data.tests or None,
        processing_class=processor,
        callbacks=list(callbacks),
    )
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)  # prints raw dictionaries; the record and `report_to` hold them
    output = Path(str(args.output_dir))
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        config.save(output / CONFIG)
    last = get_last_checkpoint(str(output)) if resume and output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    metrics = {name: trainer.evaluate({name: test}) for name, test in data.tests.items()}
    trainer.save_model()
    record = {
        "name": config.experiment.name,
        "metrics": {name: _by_name(values, f"eval_{name}_") for name, values in metrics.items()},
        "train_images": len(data.train),
        "test_images": {name: len(test) for name, test in data.tests.items()},
        "steps": trainer.state.global_step,
        "seconds": round(time.time() - started, 1),
        "seed": args.seed,
        "git_revision": git_revision(),
        "versions": versions(),
        "config": config.source,
    }
    if trainer.is_world_process_zero():
        write_json(output / RESULTS, record)
    return json.loads(json.dumps(record))


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "sind_hf": __version__,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)},
    }


def git_revision() -> str | None:
    """Return the revision of the working directory's git repository, None outside one."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _by_name(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _require_images(manifest: Manifest, image_root: str) -> None:
    missing = [problem for problem in manifest.validate(image_root)]
    if missing:
        raise ValueError(
            f"{manifest.dataset}: {len(missing)} of {len(manifest)} entries cannot be used below {image_root}; first: "
            f"{missing[0]}"
        )


def _join(sets: list[Dataset]) -> Dataset:
    """Join datasets; scenes of the same name in two of them stay two scenes."""
    named = []
    for number, each in enumerate(sets):
        feature = each.features["scene"]
        scenes = [f"{number}: {feature.int2str(scene)}" for scene in each["scene"]]
        named.append(each.select_columns(["image", "score"]).add_column("scene", scenes))
    return datasets.concatenate_datasets(named)
