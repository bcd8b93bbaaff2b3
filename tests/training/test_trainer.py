from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.checkpoint_comparison import assert_same
from helpers.tiny_training import make_arguments, make_model, make_processor, make_trainer
from sind_hf import SindModel
from sind_hf.calibration import CalibrationWarning
from sind_hf.image_processing_sind import ImageError, SindImageProcessor
from sind_hf.losses import by_scene
from sind_hf.metrics import ConstantInputWarning
from sind_hf.training.trainer import SindTrainer, collate_single, learning_rate_factor

pytestmark = [
    # of so few images curves cannot be fitted, and some scenes have one only
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
    pytest.mark.filterwarnings("ignore:report. no correlation within:sind_hf.metrics.ConstantInputWarning"),
]


class Recorder(TrainerCallback):
    """Weights after every optimizer step, and the learning rates and gradients that led there."""

    def __init__(self):
        self.weights, self.rates, self.gradients = [], [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(snapshot(model))


class BatchRecorder(SindTrainer):
    """Keeps what reaches the loss, and the weights that each evaluation batch met."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if model.training:
            self.batches = [*getattr(self, "batches", []), dict(inputs)]
        else:
            self.evaluated_with = snapshot(model)
        return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def by_hand_scale_shift(quality, labels, scenes):
    def aligned(values):
        middle = values.sort().values[(len(values) - 1) // 2]
        return (values - middle) / (values - middle).abs().mean()

    parts = [(aligned(quality[scenes == s]) - aligned(labels[scenes == s])).abs().mean() for s in set(scenes.tolist())]
    return sum(parts) / len(parts)


# --- batches and the loss ------------------------------------------------------------------------------------------


def test_batches_hold_k_scenes_and_an_epoch_holds_every_image(tmp_path, images):
    trainer = make_trainer(tmp_path, images, trainer_class=BatchRecorder, scene_sampling=2, num_train_epochs=2)
    trainer.train()
    assert len(trainer.batches) == 12
    for batch in trainer.batches:
        assert torch.bincount(batch["scene_ids"], minlength=3).sort().values.tolist() == [0, 2, 2]
        assert batch["pixel_values"].dtype == torch.uint8 and batch["pixel_values"].shape == (4, 3, 56, 56)
    epochs = [[b for b in trainer.batches[start : start + 6]] for start in (0, 6)]
    for epoch in epochs:
        assert sorted(score for batch in epoch for score in batch["labels"].tolist()) == sorted(images["score"])
    # the second epoch draws another order, and other crops of the same images
    assert [batch["labels"].tolist() for batch in epochs[0]] != [batch["labels"].tolist() for batch in epochs[1]]
    crops = [
        {
            score: view.numpy().tobytes()
            for b in epoch
            for score, view in zip(b["labels"].tolist(), b["pixel_values"], strict=True)
        }
        for epoch in epochs
    ]
    assert sum(crops[0][score] == crops[1][score] for score in crops[0]) <= 2


def test_seeds_decide_about_batches_and_crops(tmp_path, images):
    def first_batch(**options):
        trainer = make_trainer(tmp_path, images, trainer_class=BatchRecorder, max_steps=1, **options)
        trainer.train()
        return trainer.batches[0]

    torch.rand(3)
    assert_same(first_batch(seed=3), first_batch(seed=5, data_seed=3))
    assert first_batch(seed=3)["labels"].tolist() != first_batch(seed=4)["labels"].tolist()


@pytest.mark.parametrize(
    ("scene_sampling", "loss_type"), [(2, "scale_shift"), (0, "scale_shift"), (2, "l1"), (0, "l1")]
)
def test_the_loss_is_applied_within_scenes(tmp_path, images, scene_sampling, loss_type):
    trainer = make_trainer(
        tmp_path,
        images,
        trainer_class=BatchRecorder,
        scene_sampling=scene_sampling,
        loss_type=loss_type,
        max_steps=1,
        per_device_train_batch_size=12,
        logging_strategy="steps",
        logging_steps=1,
    )
    model = make_model().train()
    trainer.train()
    (batch,) = trainer.batches
    with torch.no_grad():
        quality = model(batch["pixel_values"], batch["local_pixel_values"]).quality
    scenes = batch["scene_ids"] if scene_sampling else torch.zeros(12)
    labels = batch["labels"].float()
    if loss_type == "l1":
        expected = torch.stack([(quality - labels)[scenes == s].abs().mean() for s in scenes.unique()]).mean()
    else:
        expected = by_hand_scale_shift(quality, labels, scenes)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_accumulated_gradients_are_the_mean_of_the_batches(tmp_path, images):
    recorder = Recorder()
    trainer = make_trainer(
        tmp_path,
        images,
        callbacks=[recorder],
        trainer_class=BatchRecorder,
        gradient_accumulation_steps=4,  # of six batches: four, then the two that are left
        num_train_epochs=1,
        warmup_epochs=1,  # so that the first update does not move the weights
        logging_strategy="steps",
        logging_steps=1,
    )
    trainer.train()
    assert len(trainer.batches) == 6 and len(recorder.gradients) == 2
    assert recorder.rates[0] == [0.0, 0.0]
    model, losses = make_model().train(), []
    for batches, gradients in zip((trainer.batches[:4], trainer.batches[4:]), recorder.gradients, strict=True):
        model.zero_grad()
        each = [
            by_scene(model(b["pixel_values"], b["local_pixel_values"]).quality, b["labels"], b["scene_ids"])
            for b in batches
        ]
        losses.append(sum(each) / len(each))
        losses[-1].backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
    logged = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert logged == pytest.approx([loss.item() for loss in losses], rel=1e-5)


# --- the published recipe ------------------------------------------------------------------------------------------


def test_schedule_as_published():
    # SPAQ: 35 epochs of 130 steps, five of warm-up
    total, warmup = 35 * 130, 5 * 130
    factors = [learning_rate_factor(step, warmup, total) for step in range(total)]
    assert factors[0] == 0 and factors[1] == pytest.approx(1 / 650) and factors[325] == pytest.approx(0.5)
    assert factors[650] == 1 and max(factors) == 1
    assert factors[650 + total // 2] == pytest.approx(0.5)
    # the cosine is over all steps, so it ends above zero
    assert (
        factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * (total - 1 - 650) / total))) and factors[-1] > 0.04
    )
    assert learning_rate_factor(0, 0, 10) == 1


@pytest.mark.parametrize(
    ("options", "warmup"),
    [
        ({"warmup_epochs": 0.5}, 3),
        ({"warmup_epochs": 1}, 6),
        ({"warmup_epochs": 1, "gradient_accumulation_steps": 4}, 2),  # two updates an epoch
        ({"warmup_epochs": 1, "warmup_steps": 2}, 2),
        ({"warmup_epochs": 1, "warmup_steps": 0.25}, 3),  # a share of all steps
        ({"warmup_epochs": 0}, 0),
    ],
)
def test_learning_rates_of_a_run(tmp_path, images, options, warmup):
    recorder = Recorder()
    options = {"num_train_epochs": 2, "learning_rate": 0.02, "lr_ratio": 10} | options
    make_trainer(tmp_path, images, callbacks=[recorder], **options).train()
    total = 4 if "gradient_accumulation_steps" in options else 12
    share = [
        step / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / total))
        for step in range(total)
    ]
    assert recorder.rates == [[pytest.approx(0.002 * s), pytest.approx(0.02 * s)] for s in share]


def test_warm_up_is_counted_in_epochs_without_a_loader_too(tmp_path, images):
    trainer = make_trainer(tmp_path, images, warmup_epochs=1)
    trainer.create_optimizer_and_scheduler(12)
    for _ in range(3):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert trainer.lr_scheduler.get_last_lr() == [pytest.approx(0.5e-2)] * 2


def test_first_step_is_adams_with_l2_decay(tmp_path, images):
    recorder = Recorder()
    start = snapshot(make_model())
    decay, rate = 0.5, 1e-3
    make_trainer(
        tmp_path,
        images,
        callbacks=[recorder],
        max_steps=1,
        warmup_epochs=0,
        weight_decay=decay,
        learning_rate=rate,
        lr_ratio=4,
    ).train()
    (gradients,), (weights,) = recorder.gradients, recorder.weights
    assert gradients
    for name, gradient in gradients.items():
        g = gradient + decay * start[name]  # in the gradient, for biases and norms too: L2, not AdamW
        step = rate / (1 if name.startswith("quality_head.") else 4) * g / (g.abs() + 1e-8)
        torch.testing.assert_close(weights[name], start[name] - step, rtol=1e-5, atol=1e-7)


def test_a_frozen_backbone_stays(tmp_path, images):
    start = snapshot(make_model())
    trainer = make_trainer(tmp_path, images, make_model(freeze_backbone=True), max_steps=3, loss_type="l1")
    trainer.train()
    assert [len(group["params"]) for group in trainer.optimizer.param_groups] == [2]
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {"quality_head.weight", "quality_head.bias"}


def test_other_optimizers_are_the_trainers_own(tmp_path, images):
    trainer = make_trainer(
        tmp_path, images, published_schedule=False, optim="sgd", lr_scheduler_type="constant", max_steps=2
    )
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, torch.optim.SGD)
    assert trainer.lr_scheduler.get_last_lr() == [1e-2, 1e-2]


# --- the averaged weights ------------------------------------------------------------------------------------------


def torch_ema(start, weights, decay):
    average = {name: value.double() for name, value in start.items()}
    for n, now in enumerate(weights, 1):
        keep = min(decay, (1 + n) / (10 + n))
        for name, value in now.items():
            if "running_" in name or "num_batches" in name:
                average[name] = value.double()
            else:
                average[name] -= (1 - keep) * (average[name] - value)
    return average


def assert_close(state, expected):
    for name, value in state.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-4, atol=1e-6)


def test_evaluation_and_saving_use_the_average_and_training_its_own(tmp_path, images):
    class AroundEvaluation(Recorder):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            assert_same(snapshot(model), self.weights[-1])

        on_save = on_evaluate

    recorder = AroundEvaluation()
    trainer = make_trainer(
        tmp_path,
        images,
        callbacks=[recorder],
        trainer_class=BatchRecorder,
        eval_dataset=images.select(range(4)),
        max_steps=7,
        ema_decay=0.4,
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=5,
    )
    start = snapshot(trainer.model)
    trainer.train()
    after_five, after_seven = (torch_ema(start, recorder.weights[:n], 0.4) for n in (5, 7))
    saved = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    assert_close(saved, after_five)
    assert_close(trainer.evaluated_with, after_seven)  # the evaluation at the end
    assert_same(load_file(tmp_path / "checkpoint-5" / "training_weights.safetensors"), recorder.weights[4])
    assert not torch.equal(saved["quality_head.weight"], recorder.weights[4]["quality_head.weight"])
    assert_close(SindModel.from_pretrained(tmp_path / "checkpoint-5").state_dict(), after_five)
    # after training the model holds the average, and goes on doing so
    assert_close(trainer.model.state_dict(), after_seven)
    held = snapshot(trainer.model)
    trainer.remove_callback(recorder)
    trainer.evaluate()
    trainer.save_model(tmp_path / "final")
    assert_same(snapshot(trainer.model), held)
    assert_same(load_file(tmp_path / "final" / "model.safetensors"), held)


def test_without_an_average_everything_is_the_training_weights(tmp_path, images):
    recorder = Recorder()
    trainer = make_trainer(
        tmp_path, images, callbacks=[recorder], max_steps=3, ema_decay=0, save_strategy="steps", save_steps=2
    )
    trainer.train()
    assert_same(snapshot(trainer.model), recorder.weights[-1])
    assert_same(load_file(tmp_path / "checkpoint-2" / "model.safetensors"), recorder.weights[1])
    assert not (tmp_path / "checkpoint-2" / "training_weights.safetensors").exists()


def test_a_second_training_starts_a_new_average(tmp_path, images):
    recorder = Recorder()
    trainer = make_trainer(tmp_path, images, callbacks=[recorder], max_steps=2, ema_decay=0.4)
    trainer.train()
    start = snapshot(trainer.model)
    recorder.weights.clear()
    trainer.train()
    assert_close(trainer.model.state_dict(), torch_ema(start, recorder.weights, 0.4))


def test_the_best_model_at_the_end_is_the_average_that_was_best(tmp_path, images):
    test_set = images.select(range(12))
    trainer = make_trainer(
        tmp_path,
        images,
        eval_dataset={"held": test_set},
        learning_rate=0.3,  # goes up and down
        max_steps=6,
        ema_decay=0.4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="held_srcc",
    )
    trainer.train()
    values = {
        record["step"]: record["eval_held_srcc"] for record in trainer.state.log_history if "eval_held_srcc" in record
    }
    best = max(values, key=lambda step: values[step])
    assert trainer.state.best_global_step == best < 6
    assert trainer.state.best_metric == values[best] > values[6]
    assert_same(snapshot(trainer.model), load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors"))
    assert trainer.evaluate(test_set)["eval_srcc"] == values[best]


# --- evaluation ----------------------------------------------------------------------------------------------------


def test_metrics_of_several_data_sets_by_name(tmp_path, images):
    one_scene = images.filter(lambda row: row["scene"] == "food")
    trainer = make_trainer(tmp_path, None, eval_dataset={"all": images, "food": one_scene}, eval_views="nine")
    metrics = trainer.evaluate()
    names = {"loss", "srcc", "plcc", "krcc", "rmse", "plcc_logistic4", "plcc_logistic5"}
    assert {f"eval_{data}_{name}" for data in ("all", "food") for name in names} <= metrics.keys()
    assert {name for name in metrics if "within_scene" in name} == {
        "eval_all_within_scene_srcc",
        "eval_all_within_scene_plcc",
    }
    # the same numbers from the model itself
    scores = np.array(trainer.model.score(list(images["image"]), make_processor(), views="nine"))
    targets = np.array(images["score"])
    assert metrics["eval_all_plcc"] == pytest.approx(np.corrcoef(scores, targets)[0, 1], abs=1e-4)
    rise = max(0, np.corrcoef(scores, targets)[0, 1])  # not calibrated: the error is taken after the best rising line
    assert metrics["eval_all_rmse"] == pytest.approx(np.std(targets) * np.sqrt(1 - rise**2), rel=1e-5)
    within = [np.corrcoef(scores[i::3], targets[i::3])[0, 1] for i in range(3)]
    assert metrics["eval_all_within_scene_plcc"] == pytest.approx(np.mean(within), abs=1e-4)
    assert metrics["eval_food_plcc"] == pytest.approx(within[1], abs=1e-4)
    predictions = trainer.predict(images)
    assert predictions.predictions == pytest.approx(scores, abs=1e-5)
    assert predictions.label_ids[0].tolist() == list(images["score"])  # float64: no new ties


def test_evaluation_views_are_those_asked_for(tmp_path, images):
    few = images.select(range(3))
    for views in ("center", "nine"):
        trainer = make_trainer(tmp_path, None, eval_views=views)
        scores = trainer.model.score(list(few["image"]), make_processor(), views=views)
        assert trainer.predict(few).predictions == pytest.approx(scores, abs=1e-5)


def test_constant_predictions_warn_and_do_not_stop_a_training(tmp_path, images):
    model = make_model()
    torch.nn.init.zeros_(model.quality_head.weight)
    recorder = Recorder()
    trainer = make_trainer(
        tmp_path,
        images,
        model,
        callbacks=[recorder],
        eval_dataset=images,
        eval_on_start=True,
        eval_strategy="no",
        max_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    with pytest.warns(ConstantInputWarning, match="prediction constant over 24 images"):
        trainer.train()
    at_start = next(record for record in trainer.state.log_history if "eval_srcc" in record)
    assert math.isnan(at_start["eval_srcc"]) and math.isnan(at_start["eval_plcc"])
    assert math.isfinite(at_start["eval_rmse"]) and math.isfinite(at_start["eval_loss"])
    assert all(value.isfinite().all() for gradients in recorder.gradients for value in gradients.values())
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    assert math.isfinite(trainer.evaluate()["eval_srcc"])


# --- calibration ---------------------------------------------------------------------------------------------------


def scored_by(model, images, scale, shift, tmp_path):
    raw = make_trainer(tmp_path, None, model).predict(images).predictions.astype(np.float64)
    return images.remove_columns("score").add_column("score", (scale * raw + shift).tolist())


def test_calibration_finds_the_scale_of_the_scores(tmp_path, images):
    model = make_model()
    dataset = scored_by(model, images, 30.0, 55.0, tmp_path)
    trainer = make_trainer(tmp_path, dataset, model, score_range=[0.0, 100.0], eval_views="center")
    calibration = trainer.calibrate()
    assert (calibration.scale, calibration.shift) == (pytest.approx(30, rel=1e-4), pytest.approx(55, rel=1e-4))
    assert trainer.predict(dataset).predictions == pytest.approx(np.array(dataset["score"]), abs=1e-3)
    trainer.save_model(tmp_path / "saved")
    config = SindModel.from_pretrained(tmp_path / "saved").config
    assert (config.score_scale, config.score_shift) == (calibration.scale, calibration.shift)
    assert list(config.score_range) == [0.0, 100.0]
    # again, and on other scores: from the raw scores, not from the calibrated ones
    again = trainer.calibrate()
    assert (again.scale, again.shift) == (pytest.approx(calibration.scale), pytest.approx(calibration.shift))
    tenth = trainer.calibrate(dataset.map(lambda row: {"score": row["score"] / 10}))
    assert (tenth.scale, tenth.shift) == (pytest.approx(3, rel=1e-4), pytest.approx(5.5, rel=1e-4))


def test_a_negative_slope_is_not_calibrated_away(tmp_path, images):
    model = make_model(score_scale=5.0, score_shift=2.0, score_range=[0.0, 10.0])
    dataset = scored_by(model, images, -3.0, 1.0, tmp_path)
    trainer = make_trainer(tmp_path, dataset, model, score_range=[0.0, 100.0])
    with pytest.warns(CalibrationWarning, match="do not rise with the opinion scores"):
        trainer.calibrate()
    assert (model.config.score_scale, model.config.score_shift, model.config.score_range) == (1.0, 0.0, None)


def test_training_calibrates_the_averaged_model(tmp_path, images):
    trainer = make_trainer(
        tmp_path, images, max_steps=12, loss_type="l2", learning_rate=0.1, calibrate=True, score_range=[0.0, 60.0]
    )
    trainer.train()
    config = trainer.model.config
    assert config.score_scale != 1 and list(config.score_range) == [0.0, 60.0]
    scores = trainer.predict(images).predictions.astype(np.float64)
    slope, shift = np.polyfit(scores, np.array(images["score"]), 1)
    assert (slope, shift) == (pytest.approx(1, abs=1e-3), pytest.approx(0, abs=1e-2))


def test_training_without_calibration_declares_no_range(tmp_path, images):
    model = make_model(score_range=[0.0, 10.0])
    make_trainer(tmp_path, images, model, max_steps=1, calibrate=False, score_range=[0.0, 5.0]).train()
    assert model.config.score_range is None


@pytest.mark.parametrize(("limit", "rows"), [(0, range(24)), (24, range(24)), (5, [0, 6, 12, 17, 23]), (2, [0, 23])])
def test_calibration_looks_at_evenly_spread_images(tmp_path, images, limit, rows):
    class Spy(SindTrainer):
        def _evaluation_loader(self, dataset, mode):
            self.looked_at = list(dataset["score"]), mode
            return super()._evaluation_loader(dataset, mode)

        def calibrate(self, dataset=None):
            metrics, self.compute_metrics = self.compute_metrics, lambda prediction: pytest.fail("metrics of training")
            result = super().calibrate(dataset)
            assert self.compute_metrics is not None
            self.compute_metrics = metrics
            return result

    trainer = make_trainer(
        tmp_path, images, trainer_class=Spy, calibration_images=limit, eval_views="nine", loss_type="l1"
    )
    trainer.calibrate()
    assert trainer.looked_at == ([images["score"][row] for row in rows], "center")


# --- what cannot work ----------------------------------------------------------------------------------------------


def test_views_need_a_processor(tmp_path, images):
    with pytest.raises(ValueError, match=r"needs processing_class=SindImageProcessor"):
        SindTrainer(model=make_model(), args=make_arguments(tmp_path), train_dataset=images)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"scene": None}, {}, "scene_sampling is 2, but the training set has no column 'scene'"),
        ({}, {"scene_column": "place"}, "the training set has no column 'place'"),
        ({}, {"scene_sampling": 4}, "asks for 4 scenes per batch, but the column 'scene' holds 3"),
        ({"score": None}, {}, "no score column 'score'"),
        ({}, {"image_column": "photo"}, "no image column 'photo'"),
        ({"score": [1.0] * 23 + [float("nan")]}, {}, "no finite number for 1 image, first in row 23"),
        ({"scene": ["a", None] * 12}, {}, "scene column 'scene' is empty for 12 images, first in row 1"),
    ],
)
def test_unusable_training_sets_are_refused_in_one_line(tmp_path, images, change, options, message):
    columns = {name: values for name, values in (images.to_dict() | change).items() if values is not None}
    with pytest.raises(ValueError, match=message) as caught:
        make_trainer(tmp_path, Dataset.from_dict(columns), **options).train()
    assert "\n" not in str(caught.value)


def test_without_scenes_none_are_needed(tmp_path, images):
    for scenes in (None, ["a", None] * 12):
        columns = images.to_dict() | {"scene": scenes}
        dataset = Dataset.from_dict({name: values for name, values in columns.items() if values is not None})
        trainer = make_trainer(tmp_path, dataset, scene_sampling=0, max_steps=1, per_device_train_batch_size=5)
        assert trainer.train().global_step == 1


def test_missing_data_sets_are_named(tmp_path, images):
    with pytest.raises(ValueError, match="Training needs a train_dataset"):
        make_trainer(tmp_path, None).train()
    with pytest.raises(ValueError, match="Evaluation needs an eval_dataset"):
        make_trainer(tmp_path, images).evaluate()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(tmp_path, images, workers):
    broken = tmp_path / "broken.png"
    with open(images["image"][7], "rb") as whole:
        broken.write_bytes(whole.read()[:900])
    paths = list(images["image"])
    paths[7] = str(broken)
    dataset = Dataset.from_dict(images.to_dict() | {"image": paths})
    trainer = make_trainer(tmp_path, dataset, eval_dataset=dataset, dataloader_num_workers=workers)
    for fails in (trainer.train, trainer.evaluate):
        with pytest.raises(ImageError, match=r"^row 7 of the dataset: .*broken\.png: damaged") as caught:
            fails()
        assert "\n" not in str(caught.value)


# --- what leaves the trainer ---------------------------------------------------------------------------------------


def test_single_precision_collation_keeps_everything_but_the_labels_dtype():
    samples = [
        {"pixel_values": torch.full((3, 2, 2), i, dtype=torch.uint8), "labels": torch.tensor(i / 3).double()}
        for i in range(2)
    ]
    batch = collate_single(samples)
    assert batch["labels"].dtype == torch.float32 and batch["pixel_values"].dtype == torch.uint8
    assert batch["labels"].tolist() == pytest.approx([0, 1 / 3]) and batch["pixel_values"][1].eq(1).all()


def test_views_of_another_size_than_the_models_are_refused(tmp_path):
    model = make_model()
    with pytest.raises(
        ValueError, match=rf"made for views of {model.config.view_size} pixels, but .* makes 448x448"
    ) as error:
        SindTrainer(
            model=model,
            args=make_arguments(tmp_path),
            processing_class=SindImageProcessor(size={"height": 448, "width": 448}),
        )
    assert "\n" not in str(error.value)
