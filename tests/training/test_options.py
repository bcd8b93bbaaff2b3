"""Whatever a user of transformers' Trainer sets is honored, or named with the reason why it is not."""

from __future__ import annotations

import dataclasses
import inspect
import warnings

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend
from transformers.trainer_utils import BestRun

from helpers.tiny_training import make_arguments, make_model, make_processor, make_trainer
from sind_hf import SindModel, SindTrainer, SindTrainingArguments
from sind_hf.losses import by_scene
from sind_hf.metrics import ConstantInputWarning, plcc, srcc
from sind_hf.training.trainer import quality_metrics

pytestmark = [
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
    pytest.mark.filterwarnings("ignore::sind_hf.calibration.CalibrationWarning"),
]
EVALUATING = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 2}


def one_step(folder, images, **options):
    trainer = make_trainer(folder, images, **{"max_steps": 1} | options)
    trainer.train()
    return trainer


# --- optimizer and schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["constant", "linear"])
def test_a_chosen_optimizer_and_schedule_win_over_the_published_ones(tmp_path, images, scheduler):
    trainer = make_trainer(
        tmp_path, images, optim="sgd", lr_scheduler_type=scheduler, warmup_steps=0, warmup_epochs=0, lr_ratio=4
    )
    trainer.create_optimizer_and_scheduler(10)
    assert type(trainer.optimizer) is torch.optim.SGD
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(1e-2 / 4)
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    rates = {round(rate, 9) for rate in trainer.lr_scheduler.get_last_lr()}
    factor = 1.0 if scheduler == "constant" else 0.9
    assert rates == {round(1e-2 * factor / 4, 9), round(1e-2 * factor, 9)}


def test_the_class_of_the_optimizer_may_be_given(tmp_path, images):
    trainer = SindTrainer(
        make_model(),
        make_arguments(tmp_path),
        train_dataset=images,
        processing_class=make_processor(),
        optimizer_cls_and_kwargs=(torch.optim.Adagrad, {"lr": 0.5}),
    )
    assert type(trainer.create_optimizer()) is torch.optim.Adagrad
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5


def test_open_choices_stay_open_when_arguments_are_copied():
    args = SindTrainingArguments("x", report_to="none", use_cpu=True)
    copy = dataclasses.replace(args, learning_rate=1.0)
    assert (copy.optim, copy.lr_scheduler_type, copy.warmup_epochs) == (None, None, 5)
    plain = SindTrainingArguments("x", report_to="none", use_cpu=True, published_schedule=False)
    assert (plain.optim, plain.lr_scheduler_type, plain.warmup_epochs) == (
        TrainingArguments.optim,
        TrainingArguments.lr_scheduler_type,
        0,
    )


def test_warm_up_in_epochs_works_with_every_schedule(tmp_path, images):
    trainer = make_trainer(
        tmp_path, images, published_schedule=False, optim="sgd", lr_scheduler_type="linear", warmup_epochs=1
    )
    trainer.create_optimizer_and_scheduler(12)  # an epoch has six steps
    for _ in range(3):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.5e-2)


def test_a_plateau_is_one_of_the_srcc(tmp_path, images):
    trainer = make_trainer(
        tmp_path, images, eval_dataset=images, lr_scheduler_type="reduce_lr_on_plateau", **EVALUATING
    )
    trainer.create_optimizer_and_scheduler(2)
    assert trainer.args.metric_for_best_model == "srcc" and trainer.lr_scheduler.mode == "max"


def test_both_learning_rates_are_logged(tmp_path, images):
    options = {"lr_ratio": 10, "logging_strategy": "steps", "logging_steps": 1, "warmup_epochs": 0}
    logged = one_step(tmp_path, images, **options).state.log_history[0]
    assert logged["learning_rate"] == logged["learning_rate_head"] == pytest.approx(1e-2)
    assert logged["learning_rate_backbone"] == pytest.approx(1e-3)


def test_the_rates_of_all_groups_are_logged_even_while_they_are_equal(tmp_path, images):
    options = {"logging_strategy": "steps", "logging_steps": 1, "warmup_steps": 1, "max_steps": 2}
    first, second, *_ = one_step(tmp_path, images, **options).state.log_history
    assert first["learning_rate_backbone"] == first["learning_rate_head"] == 0
    assert second["learning_rate_backbone"] == second["learning_rate_head"] == pytest.approx(1e-2)


def test_rates_that_differ_inside_the_backbone_are_logged_by_group(tmp_path, images):
    model = make_model()
    first, *others = model.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others, "lr": 0.2}])
    trainer = SindTrainer(
        model,
        make_arguments(tmp_path, max_steps=1, logging_strategy="steps", logging_steps=1, warmup_epochs=0),
        train_dataset=images,
        processing_class=make_processor(),
        optimizers=(optimizer, None),
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    # The second group holds the head and the rest of the backbone.
    assert (logged["learning_rate_backbone"], logged["learning_rate_head"]) == (0.1, 0.2)
    groups = ([first], others[:1], others[1:])
    third = torch.optim.SGD(
        [{"params": group, "lr": rate} for group, rate in zip(groups, (0.1, 0.2, 0.3), strict=True)]
    )
    trainer.optimizer, trainer._group_rates = third, [0.1, 0.2, 0.3]
    trainer.log({"loss": 1.0, "learning_rate": 0.1})
    logged = trainer.state.log_history[-1]
    assert [logged[f"learning_rate_group_{number}"] for number in range(3)] == [0.1, 0.2, 0.3]


def test_correlations_of_the_training_images_are_logged(tmp_path, images):
    class Noted(SindTrainer):
        seen: list[tuple[float, float]] = []

        def compute_loss(self, model, inputs, return_outputs=False, **options):
            loss, outputs = super().compute_loss(model, inputs, True, **options)
            if model.training:
                self.seen += zip(outputs["quality"].tolist(), inputs["labels"].tolist(), strict=True)
            return (loss, outputs) if return_outputs else loss

    options = {"logging_strategy": "steps", "logging_steps": 3, "max_steps": 6, "gradient_accumulation_steps": 2}
    trainer = make_trainer(tmp_path, images, eval_dataset=images, trainer_class=Noted, **options)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2 and len(Noted.seen) == 2 * 3 * 2 * 4
    for entry, part in zip(logged, (Noted.seen[:24], Noted.seen[24:]), strict=True):
        scores, labels = zip(*part, strict=True)
        assert entry["train_srcc"] == pytest.approx(srcc(scores, labels), abs=1e-6)
        assert entry["train_plcc"] == pytest.approx(plcc(scores, labels), abs=1e-5)


def test_correlations_that_are_not_defined_are_not_logged(tmp_path, images):
    constant = images.remove_columns("score").add_column("score", [1.0] * 24)
    options = {"logging_strategy": "steps", "logging_steps": 1, "loss_type": "l1"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConstantInputWarning)
        assert "train_srcc" not in one_step(tmp_path, constant, **options).state.log_history[0]


@pytest.mark.parametrize(("warmup", "warned"), [(3, True), (2, False)])
def test_a_warm_up_of_more_than_half_of_the_steps_is_reported(tmp_path, images, caplog, warmup, warned):
    trainer = make_trainer(tmp_path, images, warmup_steps=warmup)
    trainer.create_optimizer_and_scheduler(4)
    assert ("The warm-up takes 3 of the 4 steps" in caplog.text) == warned


# --- options without effect ----------------------------------------------------------------------------------------


def test_options_without_effect_are_named_in_one_warning(tmp_path, images):
    options = {
        "label_smoothing_factor": 0.1,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "optim_args": "a=1",
    }
    with pytest.warns(UserWarning, match="These training options have no effect") as caught:
        make_trainer(tmp_path, images, **options)
    (message,) = [str(each.message) for each in caught if "no effect" in str(each.message)]
    assert all(name in message for name in options) and "scores are numbers, not classes" in message


def test_options_that_have_an_effect_are_not_named(tmp_path, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_trainer(tmp_path, images, optim="sgd", lr_scheduler_type="cosine", warmup_epochs=1, lr_ratio=2)


@pytest.mark.parametrize("names", [["score"], ["scene_ids"], ["scene_ids", "labels"]])
def test_labels_have_the_names_of_the_batches(names):
    with pytest.raises(ValueError, match="set its columns with score_column and scene_column"):
        SindTrainingArguments("x", label_names=names, report_to="none", use_cpu=True)


# --- the arguments of the trainer ----------------------------------------------------------------------------------


def test_the_trainers_arguments_are_those_of_transformers_in_their_order():
    ours, theirs = (list(inspect.signature(each.__init__).parameters) for each in (SindTrainer, Trainer))
    assert ours == theirs


def test_positional_arguments(tmp_path, images):
    trainer = SindTrainer(make_model(), make_arguments(tmp_path), None, images, images, make_processor())
    assert trainer.train_dataset is images and trainer.eval_dataset is images


def test_other_arguments_are_refused_and_none_are_the_published_recipe(tmp_path, images, monkeypatch):
    with pytest.raises(ValueError, match="args is of the class TrainingArguments: pass SindTrainingArguments"):
        SindTrainer(make_model(), TrainingArguments(str(tmp_path), use_cpu=True), processing_class=make_processor())
    monkeypatch.chdir(tmp_path)
    trainer = SindTrainer(make_model(), processing_class=make_processor())
    assert (trainer.args.learning_rate, trainer.args.output_dir) == (1e-5, "tmp_trainer")


def test_a_streamed_dataset_is_refused_with_the_reason(tmp_path, images):
    with pytest.raises(ValueError, match="train_dataset is streamed, but .*: load it without streaming"):
        make_trainer(tmp_path, images.to_iterable_dataset(), max_steps=1)


def test_a_loss_function_of_the_user(tmp_path, images):
    seen = []

    def squared(outputs, labels, num_items_in_batch=None):
        seen.append((labels.dtype, int(num_items_in_batch)))
        return ((outputs["quality"] - labels) ** 2).sum() / num_items_in_batch

    trainer = SindTrainer(
        make_model(loss_type="plcc"),
        make_arguments(
            tmp_path,
            max_steps=1,
            gradient_accumulation_steps=2,
            logging_strategy="steps",
            logging_steps=1,
            scene_sampling=0,
            per_device_train_batch_size=12,
        ),
        train_dataset=images,
        eval_dataset=images,
        processing_class=make_processor(),
        compute_loss_func=squared,
    )
    trainer.train()
    assert seen[:2] == [(torch.float32, 24)] * 2
    assert trainer.model.config.loss_type == "plcc"
    assert trainer.state.log_history[0]["loss"] > 100 * 0.5  # squares of scores up to 50, not an aligned loss
    assert trainer.evaluate()["eval_loss"] > 50


def test_a_model_may_be_made_by_a_function(tmp_path, images):
    trainer = SindTrainer(
        args=make_arguments(tmp_path, max_steps=1, loss_type="plcc"),
        model_init=lambda: make_model(),
        train_dataset=images,
        processing_class=make_processor(),
    )
    first = trainer.model
    trainer.train()
    assert trainer.model is not first and trainer.model.config.loss_type == "plcc"
    with pytest.raises(ValueError, match="made for views of 112 pixels"):
        SindTrainer(
            args=make_arguments(tmp_path),
            model_init=lambda: make_model(view_size=112),
            processing_class=make_processor(),
        )


class TwoTrials:
    """Stands in for a search library: two trials, one option each."""

    default_hp_space = staticmethod(lambda trial: {})

    def ensure_available(self):
        pass

    def run(self, trainer, n_trials, direction, **kwargs):
        found = []
        for number in range(n_trials):
            trial = type("Trial", (), {"number": number, "params": {}})()
            trainer.train(trial=trial)
            found.append((trainer.compute_objective(trainer.evaluate()), trainer.args.learning_rate))
        self.__class__.found, self.__class__.direction = found, direction
        return BestRun("0", max(found)[0], {})


def test_a_hyperparameter_search_maximizes_the_srcc(tmp_path, images, monkeypatch):
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, TwoTrials)
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial.params)
    trainer = SindTrainer(
        args=make_arguments(tmp_path, max_steps=1),
        model_init=lambda: make_model(),
        train_dataset=images,
        eval_dataset={"a": images, "b": images.select(range(12))},
        processing_class=make_processor(),
    )
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": [0.1, 0.2][trial.number]}, n_trials=2, backend="optuna"
    )
    assert TwoTrials.direction == "maximize" and [rate for _, rate in TwoTrials.found] == [0.1, 0.2]
    metrics = trainer.evaluate()
    assert TwoTrials.found[-1][0] == pytest.approx((metrics["eval_a_srcc"] + metrics["eval_b_srcc"]) / 2)
    with pytest.raises(ValueError, match="direction is 'minimize', but the default objective is the SRCC"):
        trainer.hyperparameter_search(direction="minimize", backend="optuna")


# --- evaluation and prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 24])
@pytest.mark.parametrize("options", [{}, {"prediction_loss_only": True}, {"scene_sampling": 0}, {"loss_type": "rank"}])
def test_the_evaluation_loss_is_that_of_the_whole_set(tmp_path, images, batch_size, options):
    trainer = make_trainer(tmp_path, None, eval_dataset=images, per_device_eval_batch_size=batch_size, **options)
    quality = torch.tensor(make_model().score(list(images["image"]), make_processor(), views="center"))
    scenes = None if "scene_sampling" in options else torch.arange(24) % 3
    expected = by_scene(quality, torch.tensor(images["score"][:]), scenes, trainer.args.loss_type)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-3)


def test_scenes_of_one_image_do_not_make_the_loss_perfect(tmp_path, images):
    single = images.remove_columns("scene").add_column("scene", [f"scene {i}" for i in range(24)])
    assert np.isnan(make_trainer(tmp_path, None, eval_dataset=single).evaluate()["eval_loss"])
    assert make_trainer(tmp_path, None, eval_dataset=single, loss_type="l1").evaluate()["eval_loss"] > 0


def test_the_error_of_uncalibrated_scores_is_taken_after_a_line(tmp_path, images):
    labels = np.array(images["score"])
    trainer = make_trainer(tmp_path, None, eval_dataset=images)
    found = trainer.evaluate()
    scores = trainer.predict(images).predictions.astype(np.float64)
    slope, shift = np.polyfit(scores, labels, 1)
    expected = np.std(labels) if slope < 0 else np.sqrt(np.mean((slope * scores + shift - labels) ** 2))
    assert found["eval_rmse"] == pytest.approx(expected, rel=1e-4)
    for model, loss in ((make_model(score_scale=2.0, score_shift=30.0), "scale_shift"), (make_model(), "l2")):
        trainer = make_trainer(tmp_path, None, model, eval_dataset=images, loss_type=loss)
        scores = trainer.predict(images).predictions
        assert trainer.evaluate()["eval_rmse"] == pytest.approx(np.sqrt(np.mean((scores - labels) ** 2)), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"load_best_model_at_end": True}, ("held_srcc", True)),
        ({"save_strategy": "best"}, ("held_srcc", True)),
        ({"load_best_model_at_end": True, "metric_for_best_model": "loss"}, ("held_loss", False)),
        ({"load_best_model_at_end": True, "metric_for_best_model": "eval_held_rmse"}, ("eval_held_rmse", False)),
        ({}, (None, None)),
    ],
)
def test_the_best_checkpoint_is_that_of_the_highest_srcc(tmp_path, images, options, expected):
    trainer = make_trainer(tmp_path, images, eval_dataset={"held": images}, **EVALUATING | options)
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == expected


@pytest.mark.parametrize("sets", [None, "held"])
def test_the_best_checkpoint_needs_no_srcc_of_the_users_metrics(tmp_path, images, sets):
    trainer = SindTrainer(
        make_model(),
        make_arguments(tmp_path, load_best_model_at_end=True, **EVALUATING),
        train_dataset=images,
        eval_dataset=images if sets is None else {sets: images},
        processing_class=make_processor(),
        compute_metrics=lambda prediction: {"mine": 1.0},
    )
    trainer.train()
    (found,) = (entry for entry in trainer.state.log_history if f"eval_{sets + '_' if sets else ''}mine" in entry)
    scores = trainer.predict(images).predictions
    assert trainer.state.best_metric == pytest.approx(srcc(scores, images["score"][:]))
    assert "eval_rmse" not in found


def test_a_best_metric_that_no_evaluation_returns_is_named(tmp_path, images):
    options = {"load_best_model_at_end": True, "metric_for_best_model": "mine"} | EVALUATING
    trainer = make_trainer(tmp_path, images, eval_dataset=images, **options)
    with pytest.raises(ValueError, match="'mine', which the evaluation does not return: choose one of krcc, loss, "):
        trainer.train()


def test_with_several_evaluation_sets_the_best_metric_names_one(tmp_path, images):
    sets = {"a": images, "b": images}
    with pytest.raises(ValueError, match="there are 2 evaluation sets: choose one, for example 'a_srcc' or 'b_srcc'"):
        make_trainer(tmp_path, images, eval_dataset=sets, load_best_model_at_end=True, **EVALUATING)


@pytest.mark.parametrize("label_names", [["labels"], ["labels", "scene_ids"]])
def test_batches_that_are_not_joined_give_the_same_metrics(tmp_path, images, label_names):
    joined = make_trainer(tmp_path, images, eval_dataset=images, label_names=label_names)
    apart = make_trainer(
        *(tmp_path, images), eval_dataset=images, label_names=label_names, eval_do_concat_batches=False
    )
    expected = joined.evaluate()
    assert ("eval_within_scene_srcc" in expected) == (len(label_names) == 2)
    found = apart.evaluate()
    for name in ("eval_srcc", "eval_loss", "eval_rmse"):
        assert found[name] == expected[name]
    assert apart.calibrate() == joined.calibrate()


def test_images_without_scores_are_predicted(tmp_path, images):
    trainer = make_trainer(tmp_path, None)
    expected = trainer.predict(images).predictions.tolist()
    without = images.select_columns("image")
    empty = Dataset.from_dict({"image": images["image"], "score": [None] * 24, "scene": [None] * 24})
    for dataset in (without, empty):
        output = trainer.predict(dataset)
        assert output.predictions.tolist() == expected and output.label_ids is None
        assert "test_srcc" not in output.metrics and "test_loss" not in output.metrics
    with pytest.raises(ValueError, match="no score column 'score'"):
        trainer.evaluate(without)


def test_the_transform_of_a_dataset_is_applied(tmp_path, images):
    from PIL import Image, ImageOps

    def inverted(batch):
        return {**batch, "image": [ImageOps.invert(Image.open(path).convert("RGB")) for path in batch["image"]]}

    trainer = make_trainer(tmp_path, None)
    plain = trainer.predict(images).predictions
    changed = trainer.predict(images.with_transform(inverted)).predictions
    expected = make_model().score([ImageOps.invert(Image.open(path)) for path in images["image"]], make_processor())
    assert changed.tolist() == pytest.approx(expected, abs=1e-5) and not np.allclose(changed, plain)
    with pytest.raises(ValueError, match=r"transform \(set_transform\) returns no column 'image'"):
        trainer.predict(images.with_transform(lambda batch: {"pixel_values": batch["image"]}))


# --- what a checkpoint says ----------------------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_was_trained_with_and_claims_no_earlier_scale(tmp_path, images):
    model = make_model(score_scale=20.0, score_shift=50.0, score_range=[0.0, 100.0])
    options = {"loss_type": "plcc", "save_strategy": "steps", "save_steps": 1, "score_range": [1.0, 5.0]}
    make_trainer(tmp_path, images, model, max_steps=1, **options).train()
    config = SindModel.from_pretrained(tmp_path / "checkpoint-1").config
    assert config.loss_type == "plcc" and config.score_range is None
    assert (config.score_scale, config.score_shift) == (1, 0)


def test_a_loss_in_the_unit_of_the_scores_keeps_the_scale(tmp_path, images):
    model = make_model(score_scale=20.0, score_shift=50.0, score_range=[0.0, 100.0])
    make_trainer(tmp_path, images, model, max_steps=1, loss_type="l1").train()
    assert (model.config.score_scale, model.config.score_shift, model.config.score_range) == (20, 50, None)


@pytest.mark.parametrize("fails", ["calibration", "last evaluation"])
def test_what_fails_after_the_last_step_does_not_lose_the_model(tmp_path, images, caplog, fails):
    class Fails(SindTrainer):
        def calibrate(self, dataset=None):
            raise RuntimeError("no calibration")

        def evaluate(self, *args, **kwargs):
            raise RuntimeError("no evaluation")

    class Weights(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.last = model.quality_head.weight.detach().clone()

    weights = Weights()
    options = {"eval_strategy": "steps", "eval_steps": 2} if fails == "last evaluation" else {"calibrate": True}
    trainer = make_trainer(
        *(tmp_path, images),
        callbacks=[weights],
        eval_dataset=images,
        trainer_class=Fails,
        max_steps=2,
        ema_decay=0,
        **options,
    )
    with pytest.raises(RuntimeError, match="no (calibration|evaluation)"):
        trainer.train()
    assert torch.equal(SindModel.from_pretrained(tmp_path).quality_head.weight, weights.last)
    assert f"its model is saved in {tmp_path}" in caplog.text


def test_metrics_of_scores_by_batch():
    class Prediction:
        predictions = [np.array([1.0, 2.0]), np.array([3.0])]
        label_ids = [(np.array([1.0, 2.0]), np.array([0, 0])), (np.array([3.5]), np.array([1]))]

    assert quality_metrics(Prediction)["rmse"] == pytest.approx(0.5 / 3**0.5)
