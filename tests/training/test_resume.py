from __future__ import annotations

import pytest
from safetensors.torch import load_file

from helpers.checkpoint_comparison import assert_same, assert_same_checkpoints
from helpers.tiny_training import StopAt, make_model, make_trainer, train_with_a_stop

pytestmark = [
    # of so few images curves cannot be fitted, and some scenes have one only
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
    pytest.mark.filterwarnings("ignore:report. no correlation within:sind_hf.metrics.ConstantInputWarning"),
]

PERSISTENT = {"max_steps": 13, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}


@pytest.mark.parametrize(
    ("backbone", "stop", "options"),
    [
        # resnet: BatchNorm's buffers; clip: dropout, so the random state
        pytest.param("resnet", 4, {"max_steps": 13}, id="inside-an-epoch"),
        pytest.param("clip", 4, {"max_steps": 13}, id="inside-an-epoch-with-dropout"),
        pytest.param("clip", 6, {"max_steps": 13}, id="between-epochs"),
        pytest.param("resnet", 2, {"max_steps": 7, "gradient_accumulation_steps": 2}, id="accumulation"),
        pytest.param("clip", 1, {"max_steps": 5, "gradient_accumulation_steps": 4}, id="uneven-accumulation"),
        pytest.param("clip", 4, {"max_steps": 13, "scene_sampling": 0}, id="without-scenes"),
        pytest.param("clip", 4, {"max_steps": 13, "dataloader_num_workers": 2}, id="workers"),
        pytest.param("clip", 4, PERSISTENT, id="persistent-workers"),
        pytest.param("clip", 6, PERSISTENT, id="persistent-workers-between-epochs"),
    ],
)
def test_stopped_and_resumed_equals_straight(tmp_path, images, backbone, stop, options):
    assert_same_checkpoints(*train_with_a_stop(tmp_path, images, backbone, stop, **options))


def test_evaluations_in_between_change_nothing(tmp_path, images):
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 8}
    make_trainer(tmp_path / "quiet", images, make_model("clip"), **options).train()
    evaluated = make_trainer(
        tmp_path / "evaluated",
        images,
        make_model("clip"),
        eval_dataset={"few": images.select(range(5))},
        eval_strategy="steps",
        eval_steps=3,  # and at the end
        eval_on_start=True,
        **options,
    )
    evaluated.train()
    assert [record["step"] for record in evaluated.state.log_history if "eval_few_srcc" in record] == [0, 3, 6, 8]
    assert_same_checkpoints(tmp_path / "quiet" / "checkpoint-8", tmp_path / "evaluated" / "checkpoint-8")


def test_a_calibrated_trainer_resumes_as_a_fresh_one(tmp_path, images):
    """After a stop the trainer has calibrated its model; a resumption must not train on that scale."""
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 8, "loss_type": "l1", "calibrate": True}
    make_trainer(tmp_path / "straight", images, **options).train()
    stopping = StopAt(4)
    trainer = make_trainer(tmp_path / "resumed", images, callbacks=[stopping], **options)
    trainer.train()
    trainer.model.config.score_scale, trainer.model.config.score_shift = 7.0, 3.0
    trainer.remove_callback(stopping)
    trainer.train(resume_from_checkpoint=True)
    assert_same_checkpoints(tmp_path / "straight" / "checkpoint-8", tmp_path / "resumed" / "checkpoint-8")


def test_a_finished_training_takes_no_further_step(tmp_path, images):
    """8 steps end inside an epoch of 6; the Trainer of transformers would take a ninth."""
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 8}
    make_trainer(tmp_path, images, make_model("clip"), **options).train()
    finished = load_file(tmp_path / "checkpoint-8/model.safetensors")
    again = make_trainer(tmp_path, images, make_model("clip", 1), **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8 and 1 < again.state.epoch < 2
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    assert_same(finished, again.model.state_dict(), "weights")
