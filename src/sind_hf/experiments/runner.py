"""Configured runs: one training, or the folds of a protocol. Each is trained, tested and recorded.

The folder of an experiment contains one run folder per fold:

    config.yaml                 configuration of the experiment
    <fold>/config.yaml          configuration of the fold, with its seed and folder
    <fold>/checkpoint-<step>    checkpoint that an interrupted training resumes from
    <fold>/scores_<set>.csv     scores of a test set
    <fold>/model.safetensors …  final checkpoint (averaged weights), with its model card
    <fold>/results.json         record, written last: a fold that has one is finished
    report.{json,csv,md,tex}    tables over all folds
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import IntervalStrategy, set_seed

from sind_hf.checkpoints import load_checkpoint
from sind_hf.configuration_sind import SindConfig
from sind_hf.data.training_sets import TrainingSets, open_named_sets, open_sets
from sind_hf.distributed import on_main_process, only_run_in
from sind_hf.experiments.config import ModelOptions, RunConfig, parse_config
from sind_hf.experiments.protocols import ExperimentFold, build_folds
from sind_hf.experiments.records import (
    best_epoch,
    by_name,
    collect_scores,
    describe_scores,
    git_revision,
    load_records,
    metrics_before_training,
    require_same_config,
    training_history,
    versions,
    write_scores,
)
from sind_hf.experiments.report import write_report
from sind_hf.files import reason, write_json
from sind_hf.hub.model_card import model_card, write_card
from sind_hf.hub.model_facts import facts_from_folder, facts_of_run
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.run_record import CONFIG, RESULTS, read_record
from sind_hf.training.checkpoint_files import whole_checkpoints
from sind_hf.training.trainer import SindTrainer

logger = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[Sequence[TrainerCallback]]]

# Defaults of a fold, so that it can be resumed and its history drawn.
_FOLD_DEFAULTS = {"save_strategy": "epoch", "save_total_limit": 1, "logging_strategy": "epoch"}


class EvaluateEvery(TrainerCallback):
    """Evaluates after every `epochs` epochs, except the last one, which is evaluated after the training."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for an evaluation if one is due."""
        epoch = round(state.epoch or 0)
        if epoch % self.epochs == 0 and state.global_step < state.max_steps:
            control.should_evaluate = True


def run_training(
    config: RunConfig, *, resume: bool = False, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, Any]:
    """Train a model by a configuration, test it, and save it with its record.

    The run folder gets the checkpoint with its model card, `config.yaml` (resolved), `results.json` (metrics,
    versions, times), and the scores of every test set. The test sets are evaluated before the training too, unless
    `training.eval_on_start` is set to false.

    Args:
        config: Configuration from `load_config`.
        resume: Whether to resume from the last checkpoint in the run folder, if there is one.
        callbacks: Additional callbacks of the Trainer, such as a progress display.

    Returns:
        The record in `results.json`.

    Raises:
        ValueError: If the configuration or the data cannot be used, the run to resume has another configuration, or
            the run folder already contains a run that is not resumed. Nothing has been trained then.
    """
    options = config.data
    data = open_named_sets(
        options.image_root,
        options.train,
        options.test,
        json_dir=options.json_dir,
        hold_out_scenes=options.hold_out_scenes,
        dataset_domain=options.dataset_domain,
    )
    _ = config.training.device  # the first access chooses between CPU and accelerator, by this configuration
    output = Path(str(config.training.output_dir))
    if config.source["training"].get("eval_on_start") is None:
        config.training.eval_on_start = bool(data.tests)
    if data.score_range is None and config.training.score_range is None and config.training.process_index == 0:
        logger.warning(
            "%s, so the scores will not be calibrated: write training.score_range=[LOWEST,HIGHEST], or declare the "
            "range in the manifests.",
            "the training sets declare different score ranges" if data.ranges_differ else "no score range is declared",
        )
    with only_run_in(output):
        if not resume:
            on_main_process(lambda: _require_no_run(output))
        return _train(config, data, {}, resume=resume, callbacks=callbacks)


def run_experiment(config: RunConfig, resume: bool = True, *, watch: Watch | None = None) -> list[dict[str, Any]]:
    """Run the folds of a protocol and report on them; return the records of all folds.

    Finished folds are not run again, and an interrupted fold resumes from its last checkpoint. Under `accelerate
    launch` all processes work on one fold at a time.

    Args:
        config: Configuration from `load_config` with `experiment.protocol`; `training.output_dir` is the folder.
        resume: Whether to continue the experiment in the folder. False: refuse a folder that is not empty.
        watch: Function from the title of a fold to a context manager, which gives callbacks for the Trainer.

    Raises:
        ValueError: If the configuration or the data cannot be used, or the folder has another configuration.
    """
    folds = build_folds(config.data, config.experiment)
    output = Path(str(config.training.output_dir))
    _ = config.training.device  # the first access chooses between CPU and accelerator, by this configuration
    seeds = config.experiment.seeds or [config.training.seed]
    runs = [(fold, seed) for fold in folds for seed in seeds]
    records = []
    with only_run_in(output):
        on_main_process(lambda: _open_folder(output, config, resume))
        for number, (fold, seed) in enumerate(runs, start=1):
            folder = output / _safe_name(fold.name) / (f"seed_{seed}" if len(seeds) > 1 else "")
            finished = on_main_process(partial(read_record, folder))
            if finished is None:
                title = f"{config.experiment.name}: {fold.name}, seed {seed} ({number}/{len(runs)})"
                with watch(title) if watch is not None else nullcontext(()) as callbacks:
                    finished = _run_fold(config, fold, seed, folder, number - 1, callbacks)
            records.append(finished)
        on_main_process(lambda: write_report(load_records(output), output))
    return records


def _run_fold(
    config: RunConfig,
    fold: ExperimentFold,
    seed: int,
    folder: Path,
    position: int,
    callbacks: Sequence[TrainerCallback],
) -> dict[str, Any]:
    """Train on one fold, or resume it, and test; return the record, as `run_training` does."""
    own = _fold_config(config, fold.name, seed, folder)
    every = config.experiment.evaluate_every  # published: 1 epoch in cross-set, 5 otherwise
    if every is None:
        every = 1 if config.experiment.protocol == "cross-set" else 5
    if every and own.training.eval_strategy == IntervalStrategy.NO:
        callbacks = [*callbacks, EvaluateEvery(every)]
    about = {
        "protocol": config.experiment.protocol,
        "fold": fold.name,
        "position": position,
        "trained_on": [manifest.dataset for manifest in fold.train],
        "sides_from": fold.origins,
    }
    data = open_sets(fold.train, fold.tests, config.data.image_root)
    return _train(own, data, about, resume=True, callbacks=callbacks)


def _fold_config(config: RunConfig, name: str, seed: int, folder: Path) -> RunConfig:
    """Return the configuration of one fold: the experiment's, with seed, folder and the defaults of a fold."""
    source = {group: dict(values) for group, values in config.source.items()}
    source["training"] = _FOLD_DEFAULTS | source["training"] | {"output_dir": str(folder), "seed": seed}
    source["training"].setdefault("run_name", f"{config.experiment.name}/{name}")
    parsed = parse_config(source, f"fold {name}")
    parsed.training.disable_tqdm = config.training.disable_tqdm
    parsed.training.hub_token = config.training.hub_token
    return parsed


def _train(
    config: RunConfig,
    data: TrainingSets,
    about: Mapping[str, Any],
    *,
    resume: bool,
    callbacks: Sequence[TrainerCallback],
) -> dict[str, Any]:
    started = time.time()
    args = config.training
    output = Path(str(args.output_dir))
    _ = args.device
    if resume:
        on_main_process(lambda: require_same_config(output, config.source))
    if args.score_range is None and data.score_range is not None:
        args.score_range = list(data.score_range)
    args.calibrate = args.calibrate and args.score_range is not None
    model, processor = build_model(config.model, args.loss_type, args.seed)
    trainer = SindTrainer(
        model=model,
        args=args,
        train_dataset=data.train,
        eval_dataset=data.tests or None,
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trainer.run_facts = facts_of_run({"config": config.source, "train_images": data.train_images, **about})
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)  # its lines are in the record
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        config.save(output / CONFIG)
    last = on_main_process(lambda: next(reversed(whole_checkpoints(output)), None) if resume else None)
    args.eval_on_start = args.eval_on_start and last is None  # a resumed log has this evaluation already
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trainer.save_model(_internal_call=True)  # before the tests, which may fail; pushed once the record is written
    metrics, scores = {}, {}
    for name, test in data.tests.items():
        answer = trainer.predict(test, metric_key_prefix=f"eval_{name}")
        trainer.log(dict(answer.metrics or {}))
        found: Any = answer.predictions  # one array, or one for each batch (eval_do_concat_batches)
        predictions = np.hstack(found)
        scores[name] = collect_scores(test, predictions.tolist(), config.data.image_root)
        metrics[name] = by_name(answer.metrics or {}, f"eval_{name}_")
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):  # opened its file again for these metrics and must close it
            callback.on_train_end(args, trainer.state, trainer.control)
    history = training_history(trainer.state.log_history, list(data.tests))
    before = metrics_before_training(trainer.state.log_history, list(data.tests))

    def recorded() -> dict[str, Any]:
        record = {
            "name": config.experiment.name,
            **about,
            "seed": args.seed,
            "metrics": metrics,
            **({"before_training": before} if before else {}),
            "tests": {name: describe_scores(found) for name, found in scores.items()},
            "best_epoch_chosen_on_test_set": {name: best_epoch(found) for name, found in history["tests"].items()},
            "history": history,
            "train_images": data.train_images,
            "test_images": {name: len(test) for name, test in data.tests.items()},
            "epochs": trainer.state.epoch,
            "steps": trainer.state.global_step,
            "processes": args.world_size,
            "seconds": round(time.time() - started, 1),
            "resumed_from": None if last is None else last.name,
            "git_revision": git_revision(),
            "versions": versions(),
            "config": config.source,
        }
        for name, found in scores.items():
            write_scores(output / f"scores_{_safe_name(name)}.csv", found)
        write_json(output / RESULTS, record)
        write_card(model_card(facts_from_folder(output), args.hub_model_id or output.absolute().name), output)
        return read_record(output) or record

    record = on_main_process(recorded)
    if args.push_to_hub:
        trainer.push_to_hub()
    return record


def build_model(options: ModelOptions, loss_type: str, seed: int) -> tuple[SindModel, SindImageProcessor]:
    """Return the model that a run starts from, and its image processor; `seed` is that of new weights.

    Raises:
        ValueError: If a checkpoint cannot be loaded, or options contradict the backbone.
    """
    set_seed(seed)
    if options.checkpoint:
        fixed = {"local_branch": "patch", "view_size": None, "resize_backend": "torch"}
        if given := [name for name, default in fixed.items() if getattr(options, name) != default]:
            raise ValueError(f"model.checkpoint has its own {' and '.join(given)}: leave out {given[0]}.")
        model, processor = load_checkpoint(options.checkpoint, device="cpu")
        model.config.loss_type = loss_type
        if options.freeze_backbone:
            model.freeze_backbone()
        if options.freeze_batch_norm:
            model.freeze_batch_norm()
        return model, processor
    settings: dict[str, Any] = {
        "local_branch": options.local_branch,
        "freeze_backbone": options.freeze_backbone,
        "freeze_batch_norm": options.freeze_batch_norm,
        "loss_type": loss_type,
        **({"view_size": options.view_size} if options.view_size else {}),
    }
    if options.backbone:
        try:
            model = SindModel.from_backbone(options.backbone, **settings)
        except OSError as error:
            raise ValueError(f"model.backbone {options.backbone!r} cannot be loaded: {reason(error)}") from None
    else:
        model = SindModel(SindConfig(vision_config=options.vision_config, **settings))
    side = int(model.config.view_size or 224)
    processor = SindImageProcessor(
        size={"height": side, "width": side}, resize_backend=options.resize_backend, views="center"
    )
    return model, processor


def _open_folder(output: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        require_same_config(output, config.source)
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: resume the run in it, or choose another training.output_dir.")
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / CONFIG)


def _require_no_run(output: Path) -> None:
    """Refuse a folder that contains a run, whose checkpoints and record would mix with those of this run."""
    if earlier := [*whole_checkpoints(output), *output.glob(RESULTS)]:
        raise ValueError(
            f"{output}: this folder already contains a run ({earlier[-1].name}): resume it with --resume, or choose "
            "another training.output_dir."
        )


def _safe_name(name: str) -> str:
    return re.sub(r"[^\w .+-]", "_", name)
