from __future__ import annotations

import dataclasses
import json

import pytest
from transformers import HfArgumentParser, TrainingArguments

from sind_hf.training.training_args import SindTrainingArguments

QUIET = {"report_to": "none", "use_cpu": True}


def test_defaults_are_the_published_recipe():
    args = SindTrainingArguments(**QUIET)
    assert (args.learning_rate, args.weight_decay, args.lr_ratio) == (1e-5, 1e-5, 1.0)
    assert (args.num_train_epochs, args.warmup_epochs, args.max_grad_norm) == (35, 5, 0)
    assert (args.per_device_train_batch_size, args.scene_sampling) == (64, 2)
    assert (args.loss_type, args.ema_decay, args.eval_views) == ("scale_shift", 0.99, "nine")
    assert args.published_schedule and args.calibrate
    assert not args.bf16 and not args.fp16
    assert args.remove_unused_columns is False
    assert args.label_names == ["labels", "scene_ids"]


def test_parsed_from_a_command_line():
    line = [
        *("--output_dir", "runs/x", "--scene_sampling", "4", "--loss_type", "plcc+rank", "--ema_decay", "0"),
        *(
            "--score_range",
            "1",
            "5",
            "--published_schedule",
            "false",
            "--learning_rate",
            "3e-4",
            "--calibrate",
            "false",
        ),
        *("--report_to", "none", "--use_cpu"),
    ]
    (args,) = HfArgumentParser(SindTrainingArguments).parse_args_into_dataclasses(line)
    assert (args.scene_sampling, args.loss_type, args.ema_decay) == (4, "plcc+rank", 0.0)
    assert (args.score_range, args.published_schedule, args.learning_rate) == ([1.0, 5.0], False, 3e-4)
    assert args.calibrate is False and args.label_names == ["labels", "scene_ids"]


def test_parsed_from_a_dict_and_back():
    (args,) = HfArgumentParser(SindTrainingArguments).parse_dict(QUIET | {"output_dir": "x", "scene_sampling": 4})
    written = json.loads(args.to_json_string())
    assert (written["scene_sampling"], written["loss_type"]) == (4, "scale_shift")


def test_every_option_explains_itself():
    inherited = {item.name for item in dataclasses.fields(TrainingArguments)}
    own = [item for item in dataclasses.fields(SindTrainingArguments) if item.name not in inherited]
    assert own and all(item.metadata["help"].strip() for item in own)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "scale_shfit"}, "Unknown loss 'scale_shfit'. Did you mean 'scale_shift'?"),
        ({"scene_sampling": -1}, "scene_sampling is -1: give the number of scenes per batch"),
        ({"scene_sampling": 3}, "per_device_train_batch_size is 64, scene_sampling is 3"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"ema_decay": -0.1}, "ema_decay is -0.1"),
        ({"lr_ratio": 0}, "lr_ratio is 0: it must be positive"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1"),
        ({"eval_views": "train"}, "eval_views is 'train': it must be 'nine' or 'center'"),
        ({"calibration_images": 1}, "calibration_images is 1: a fit needs at least 2 images"),
        ({"calibration_images": -5}, "calibration_images is -5"),
        ({"score_range": [100.0, 0.0]}, r"score_range is \[100.0, 0.0\]"),
        ({"score_range": [1.0]}, r"score_range is \[1.0\]"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches would divide scenes among processes"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size shrinks batches"),
    ],
)
def test_contradictions_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        SindTrainingArguments(**QUIET | options)
    assert "\n" not in str(caught.value)


def test_what_scenes_forbid_is_allowed_without_them():
    args = SindTrainingArguments(**QUIET, scene_sampling=0, per_device_train_batch_size=7, auto_find_batch_size=True)
    assert args.per_device_train_batch_size == 7
