"""Configured runs: one training, or the folds of a protocol; each is trained, tested and recorded.

An experiment has one folder, and in it one folder per fold:

    config.yaml                 the configuration of the experiment
    <fold>/config.yaml          that of the fold: seed and folder filled in
    <fold>/checkpoint-<step>    what an interrupted training goes on from
    <fold>/results.json         the record, written last: a fold that has one is finished
    <fold>/scores_<set>.csv     the scores behind it
    <fold>/model.safetensors …  the checkpoint (averaged weights)
    report.{json,csv,md,tex}    tables over all folds
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import IntervalStrategy

from sind_hf.distributed import on_main_process, only_run_in
from sind_hf.experiments.config import ExperimentOptions, RunConfig, parse_config
from sind_hf.experiments.models import build_model
from sind_hf.experiments.protocols import ExperimentFold, build_folds
from sind_hf.experiments.records import (
    CONFIG,
    RESULTS,
    best_epoch,
    by_name,
    collect_scores,
    describe_scores,
    git_revision,
    load_record,
    load_records,
    require_same_config,
    training_history,
    versions,
    write_scores,
)
from sind_hf.experiments.report import write_report
from sind_hf.experiments.run_data import RunData, build_data, fold_data
from sind_hf.files import write_json
from sind_hf.hub.model_facts import facts_of_run
from sind_hf.training.checkpoint_files import whole_checkpoints
from sind_hf.training.trainer import SindTrainer

Watch = Callable[[str], AbstractContextManager[Sequence[TrainerCallback]]]

# What a fold needs beyond the published recipe to be resumed and drawn, where the configuration does not say.
_FOLD_DEFAULTS = {"save_strategy": "epoch", "save_total_limit": 1, "logging_strategy": "epoch"}


class EvaluateEvery(TrainerCallback):
    """Evaluates after every so many epochs; the last epoch is evaluated after the training anyway."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for an evaluation where one is due."""
        epoch = round(state.epoch or 0)
        if epoch % self.epochs == 0 and state.global_step < state.max_steps:
            control.should_evaluate = True


def run_training(
    config: RunConfig,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    make_trainer: Callable[..., SindTrainer] = SindTrainer,
) -> dict[str, Any]:
    """Train as a configuration says, test, and save the checkpoint with its record.

    The output folder gets the checkpoint, `config.yaml` (resolved), `results.json` (metrics, versions, times), and the
    scores of every test set.

    Args:
        config: From `load_config`.
        resume: Go on from the last checkpoint in the output folder, where there is one.
        callbacks: Further callbacks of the Trainer, such as a progress display.
        make_trainer: Makes the trainer from the arguments of `SindTrainer`: a subclass.

    Returns:
        The record that `results.json` holds.

    Raises:
        ValueError: On unusable configuration or data, a folder of another configuration to resume in, or one that
            holds a run where none is resumed; nothing has been trained then.
    """
    data = build_data(config.data)
    _ = config.training.device  # the first to ask decides on CPU or accelerator, and that is the configuration
    output = Path(str(config.training.output_dir))
    with only_run_in(output):
        if not resume:
            on_main_process(lambda: _require_no_run(output))
        return _train(config, data, {}, resume=resume, callbacks=callbacks, make_trainer=make_trainer)


def run_experiment(config: RunConfig, resume: bool = True, *, watch: Watch | None = None) -> list[dict[str, Any]]:
    """Run the folds of a protocol, and report on them.

    Finished folds are not run again, and an interrupted one goes on from its last checkpoint. Under `accelerate
    launch` all processes work on one fold at a time.

    Args:
        config: From `load_config`; `experiment.protocol` says which protocol, `training.output_dir` is the folder.
        resume: Go on with what the folder holds. False: refuse a folder that holds something.
        watch: Called with the title of a fold; its context gives callbacks for the Trainer.

    Returns:
        The records of all folds.

    Raises:
        ValueError: On unusable configuration or data, or a folder that was made with another configuration.
    """
    folds = build_folds(config.data, config.experiment)
    output = Path(str(config.training.output_dir))
    _ = config.training.device  # the first to ask decides on CPU or accelerator, and that is the configuration
    with only_run_in(output):
        return _run_folds(config, folds, output, resume, watch)


def _run_folds(
    config: RunConfig, folds: Sequence[ExperimentFold], output: Path, resume: bool, watch: Watch | None
) -> list[dict[str, Any]]:
    on_main_process(lambda: _open_folder(output, config, resume))
    seeds = config.experiment.seeds or [config.training.seed]
    runs = [(fold, seed) for fold in folds for seed in seeds]
    records = []
    for number, (fold, seed) in enumerate(runs, start=1):
        folder = output / _safe_name(fold.name) / (f"seed_{seed}" if len(seeds) > 1 else "")
        finished = on_main_process(lambda folder=folder: _finished_record(folder))  # type: ignore[misc]
        if finished is None:
            title = f"{config.experiment.name}: {fold.name}, seed {seed} ({number}/{len(runs)})"
            with watch(title) if watch is not None else nullcontext(()) as callbacks:
                finished = run_fold(config, fold, seed, folder, number - 1, callbacks)
        records.append(finished)
    on_main_process(lambda: write_report(load_records(output), output))
    return records


def run_fold(
    config: RunConfig,
    fold: ExperimentFold,
    seed: int,
    folder: Path,
    position: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train on one fold, or go on with it, and test.

    Args:
        config: Of the experiment.
        fold: One of its folds.
        seed: Of weights, order and crops.
        folder: For everything that is made.
        position: Of the fold within the experiment, for the order of tables.
        callbacks: Further callbacks of the Trainer.

    Returns:
        The record: see `run_training`; also the fold, what its sides came from, and the protocol.

    Raises:
        ValueError: When pictures are missing, or the folder was made with another configuration.
    """
    own = fold_config(config, fold.name, seed, folder)
    every = evaluation_interval(config.experiment)
    if every and own.training.eval_strategy == IntervalStrategy.NO:
        callbacks = [*callbacks, EvaluateEvery(every)]
    about = {
        "protocol": config.experiment.protocol,
        "fold": fold.name,
        "position": position,
        "trained_on": [manifest.dataset for manifest in fold.train],
        "sides_from": fold.origins,
    }
    return _train(own, fold_data(fold, config.data.image_root), about, resume=True, callbacks=callbacks)


def fold_config(config: RunConfig, name: str, seed: int, folder: Path) -> RunConfig:
    """Return the configuration of one fold: the experiment's, with seed, folder and what resumption needs."""
    source = {group: dict(values) for group, values in config.source.items()}
    source["training"] = _FOLD_DEFAULTS | source["training"] | {"output_dir": str(folder), "seed": seed}
    source["training"].setdefault("run_name", f"{config.experiment.name}/{name}")
    parsed = parse_config(source, f"fold {name}")
    parsed.training.disable_tqdm = config.training.disable_tqdm
    parsed.training.hub_token = config.training.hub_token
    return parsed


def evaluation_interval(options: ExperimentOptions) -> int:
    """Return the epochs between evaluations; 0 for none but the last (published: 1 in cross-set, 5 otherwise)."""
    if options.evaluate_every is not None:
        return options.evaluate_every
    return 1 if options.protocol == "cross-set" else 5


def _train(
    config: RunConfig,
    data: RunData,
    about: Mapping[str, Any],
    *,
    resume: bool,
    callbacks: Sequence[TrainerCallback],
    make_trainer: Callable[..., SindTrainer] = SindTrainer,
) -> dict[str, Any]:
    started = time.time()
    args = config.training
    output = Path(str(args.output_dir))
    _ = args.device
    if resume:
        on_main_process(lambda: require_same_config(output / CONFIG, config.source))
    if args.score_range is None and data.score_range is not None:
        args.score_range = list(data.score_range)
    args.calibrate = args.calibrate and args.score_range is not None
    model, processor = build_model(config.model, args.loss_type, args.seed)
    trainer = make_trainer(
        model=model,
        args=args,
        train_dataset=data.train,
        eval_dataset=data.tests or None,
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trainer.run_facts = facts_of_run({"config": config.source, "train_images": data.train_images, **about})
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)  # it prints what the record holds
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        config.save(output / CONFIG)
    last = on_main_process(lambda: next(reversed(whole_checkpoints(output)), None) if resume else None)
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
        if isinstance(callback, TensorBoardCallback):  # opened its file again for these metrics; nobody else closes it
            callback.on_train_end(args, trainer.state, trainer.control)
    history = training_history(trainer.state.log_history, list(data.tests))

    def recorded() -> dict[str, Any]:
        record = {
            "name": config.experiment.name,
            **about,
            "seed": args.seed,
            "metrics": metrics,
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
        return load_record(output / RESULTS)

    record = on_main_process(recorded)
    if args.push_to_hub:
        trainer.push_to_hub()
    return record


def _open_folder(output: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        require_same_config(output / CONFIG, config.source)
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: go on with it (resume), or choose another training.output_dir.")
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / CONFIG)


def _require_no_run(output: Path) -> None:
    """A checkpoint or a record of an earlier run would be taken for one of this."""
    if earlier := [*whole_checkpoints(output), *output.glob(RESULTS)]:
        raise ValueError(
            f"{output}: holds a run already ({earlier[-1].name}): go on with it (resume), or choose another "
            "training.output_dir."
        )


def _finished_record(folder: Path) -> dict[str, Any] | None:
    return load_record(folder / RESULTS) if (folder / RESULTS).is_file() else None


def _safe_name(name: str) -> str:
    return re.sub(r"[^\w .+-]", "_", name)
