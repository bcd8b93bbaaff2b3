"""The Hub part of the trainer: model cards from what it knows, and pushes of the files that may be published."""

from __future__ import annotations

import logging
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Sized
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils.hub import PushInProgress

from sind_hf import __version__
from sind_hf.data.sampling import EpochBatchSampler, SceneBatchSampler
from sind_hf.hub.model_card import CARD, METRICS, model_card, write_card
from sind_hf.hub.model_facts import ModelFacts, SetResult, measure_weights
from sind_hf.hub.publish import (
    MODEL_FILES,
    commit_model,
    declared_license,
    fetch_card,
    hub_api,
    list_files,
    one_line_errors,
    open_repository,
)
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.training.training_args import SindTrainingArguments

logger = logging.getLogger(__name__)

_STAGED = ".push"  # folder of the files that are pushed during a training
_SHOWN_OPTIONS = (
    *("loss_type", "scene_sampling", "eval_views", "learning_rate", "lr_ratio", "weight_decay", "ema_decay"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "seed"),
)


if TYPE_CHECKING:
    _Base = Trainer  # which this class is mixed into
else:
    _Base = object


class HubMixin(_Base):
    """Replaces a Trainer's pushes: they contain weights, processor, code and a model card, and nothing else.

    Attributes:
        run_facts: Fields of `ModelFacts` that the caller of the trainer knows better than the trainer.
        logged_in_training: Number of log entries that `train()` wrote.
        logged_on_other_scale: Number of log entries written before the scores were calibrated.
    """

    args: SindTrainingArguments
    model: SindModel
    processing_class: SindImageProcessor
    train_sampler: EpochBatchSampler | None
    hub_model_id: str | None  # type: ignore[assignment]  # the base class is typed by its defaults
    push_in_progress: PushInProgress | None = None  # type: ignore[assignment]
    logged_in_training = 0
    logged_on_other_scale = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.run_facts: dict[str, Any] = {}
        self._license_there: str | None = None
        self._background = HfApi()  # its single thread makes the pushes in order
        super().__init__(*args, **kwargs)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository `args.hub_model_id` if it does not exist. Default: the name of the output folder.

        Args:
            token: Token of the Hub. Default: `args.hub_token`.
            private: Whether a new repository is private. Default: `args.hub_private_repo`.

        Raises:
            ValueError: If the Hub refuses or cannot be reached; the message says what to do.
        """
        if not self.is_world_process_zero():
            return
        name = self.args.hub_model_id or self._output.absolute().name
        private = self.args.hub_private_repo if private is None else private
        api = hub_api(token or self.args.hub_token)
        with one_line_errors(api, name, self._output):
            self.hub_model_id = open_repository(api, name, private=private, revision=self.args.hub_revision)
            self._license_there = declared_license(fetch_card(api, self.hub_model_id, self.args.hub_revision))
        self.push_in_progress = None

    def push_to_hub(  # type: ignore[override]  # the base class, too, returns more than it says
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the model, write its card, and push both to `args.hub_model_id` as one commit.

        Args:
            commit_message: Message of the commit.
            blocking: Whether to wait for the push. False: push in the background.
            token: Token of the Hub. Default: `args.hub_token`, else that of `hf auth login` or `HF_TOKEN`.
            revision: Branch, which is made if it does not exist. Default: `args.hub_revision`, else main.
            private: Whether a new repository is private. Default: `args.hub_private_repo`.
            **kwargs: Arguments of `create_model_card`.

        Returns:
            The commit, whose text is its URL; its future if `blocking` is False; None in other processes than the
            main one.

        Raises:
            ValueError: If the Hub refuses or cannot be reached; the message says what to do. The saved files stay.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self._finish_current_push()  # before saving, because it may still read the files
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        push = partial(self._commit, self._output, commit_message, token, revision)
        return push() if blocking else self._background.run_as_future(push)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the model card into the output folder, unless it has a README.md that somebody else wrote.

        Args:
            language: Language, for the card's metadata.
            license: License of the weights, one of the Hub's identifiers, such as `mit`. Default: the license that
                the repository declared before the training.
            tags: Additional tags.
            model_name: Title. Default: the name of the repository.
            finetuned_from: Hub repository of the backbone.
            tasks: Ignored; the task is image quality assessment.
            dataset_tags: Hub repositories of the training data.
            dataset: Names of the training data.
            dataset_args: Ignored; the results name the part of the dataset.
        """
        if not self.is_world_process_zero():
            return
        facts = self.model_facts()
        if finetuned_from:
            facts = replace(facts, base_model=finetuned_from)
        if dataset:
            (count,) = facts.trained_on.values() if len(facts.trained_on) == 1 else (None,)
            names = _listed(dataset)
            facts = replace(facts, trained_on={name: count if len(names) == 1 else None for name in names})
        card = model_card(
            facts,
            self.hub_model_id or self.args.hub_model_id or self._output.absolute().name,
            license=license or self._license_there,
            language=language,
            tags=[*_listed(tags), *_listed(getattr(self.model, "model_tags", None))],
            datasets=_listed(dataset_tags),
            title=model_name,
        )
        self._output.mkdir(parents=True, exist_ok=True)
        write_card(card, self._output)

    def model_facts(self) -> ModelFacts:
        """Return what the trainer knows about its model: options, training data, metrics of the current weights."""
        pushed = self._output / _STAGED  # during a training, only pushed files are beside their weights
        parameters, file_size = measure_weights(pushed if pushed.is_dir() else self._output)
        facts = ModelFacts(
            self.model.config.to_dict(),
            tests=self._test_results(),
            versions={"sind_hf": __version__, "transformers": transformers.__version__},
            parameters=parameters,
            file_size=file_size,
        )
        if self.state.global_step > 0:
            facts = replace(facts, **self._facts_of_training())
        return replace(facts, **self.run_facts)

    def _facts_of_training(self) -> dict[str, Any]:
        options: dict[str, Any] = {name: getattr(self.args, name) for name in _SHOWN_OPTIONS}
        options |= {"steps": self.state.global_step, "processes": self.args.world_size}
        if self.state.epoch is not None:
            options["epochs"] = round(self.state.epoch, 3)
        dataset: Any = self.train_dataset
        name = getattr(getattr(dataset, "info", None), "dataset_name", None) or "a dataset without a name"
        count = len(dataset) if isinstance(dataset, Sized) else None
        sampler = self.train_sampler
        return {
            "trained_on": {} if dataset is None else {str(name): count},
            "scenes": sampler.scene_count if isinstance(sampler, SceneBatchSampler) else None,
            "training": options,
        }

    # --- pushes ------------------------------------------------------------------------------------------------------

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the published files of a checkpoint in the background during training."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done():
            if not self.args.hub_always_push:
                return
            self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        by_steps = self.args.save_strategy == SaveStrategy.STEPS
        when = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch or 0)}"
        # A later save and the removal of old checkpoints must not touch the files that are being read.
        staged = self._output / _STAGED  # one push at a time; a killed run may have left this folder
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        for name in list_files(Path(checkpoint_folder), MODEL_FILES):
            _link(Path(checkpoint_folder) / name, staged / name)
        self.create_model_card()
        shutil.copy(self._output / CARD, staged / CARD)

        def push() -> None:
            try:
                self._commit(staged, f"Training in progress, {when}")
            except ValueError as error:  # the training continues; the next push may work
                logger.warning("not pushed after %s: %s", when, error)
            finally:
                shutil.rmtree(staged, ignore_errors=True)

        self.push_in_progress = PushInProgress([self._background.run_as_future(push)])  # type: ignore[arg-type]

    def _commit(
        self, folder: Path, message: str | None, token: str | None = None, revision: str | None = None
    ) -> CommitInfo:
        repo_id, branch = str(self.hub_model_id), revision or self.args.hub_revision
        api = hub_api(token or self.args.hub_token)
        with one_line_errors(api, repo_id, self._output):
            if revision:
                open_repository(api, repo_id, revision=revision)
            hub_card = fetch_card(api, repo_id, branch)
            return commit_model(api, folder, repo_id, hub_card, revision=branch, message=message)[0]

    @property
    @abstractmethod
    def _on_scale(self) -> bool:
        """Whether the scores are on the scale of the opinion scores; the trainer knows."""

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def _output(self) -> Path:
        return Path(str(self.args.output_dir))

    def _test_results(self) -> tuple[SetResult, ...]:
        """Return the last metrics of every evaluation set, if they belong to the weights that the model has now."""
        step = self.state.global_step
        if self.args.load_best_model_at_end and self.logged_in_training and self.state.best_global_step is not None:
            step = self.state.best_global_step
        found: dict[str, dict[str, float | None]] = {}
        for index, entry in enumerate(self.state.log_history):
            training = index < self.logged_in_training or not self.logged_in_training
            if training and entry.get("step") != step:
                continue
            for key in entry:
                if match := re.fullmatch(r"eval_(?:(.+)_)?krcc", key):
                    values = {name: entry.get(f"{key.removesuffix('krcc')}{name}") for name in METRICS}
                    if index < self.logged_on_other_scale or not self._on_scale:
                        del values["rmse"]
                    found[match[1] or "evaluation set"] = {
                        name: value for name, value in values.items() if value is not None
                    }
        return tuple(SetResult(name, values, self._size_of(name)) for name, values in found.items())

    def _size_of(self, name: str) -> int | None:
        sets: Any = self.eval_dataset
        chosen = sets.get(name) if isinstance(sets, dict) else sets if name == "evaluation set" else None
        return len(chosen) if isinstance(chosen, Sized) else None


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or a file system without links
        shutil.copy(source, target)
