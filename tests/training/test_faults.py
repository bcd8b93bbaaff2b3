"""What can go wrong in a training: nothing is lost, and the message says what to do."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers.trainer
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.checkpoint_comparison import assert_same_checkpoints
from helpers.tiny_training import make_model, make_trainer
from sind_hf import SindImageProcessor
from sind_hf.experiments.runner import EvaluateEvery
from sind_hf.training.callbacks import TrainingInterrupted
from sind_hf.training.checkpoint_files import whole_checkpoints

SAVING = {"max_steps": 9, "save_strategy": "steps", "save_steps": 3}


class At(TrainerCallback):
    """Does something at the beginning of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell that starts pytest in the background makes it ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_training_resumes_bit_for_bit(tmp_path, images, number):
    make_trainer(tmp_path / "straight", images, make_model("clip"), **SAVING).train()
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    sending = At(4, lambda: os.kill(os.getpid(), number))
    trainer = make_trainer(tmp_path / "stopped", images, make_model("clip"), callbacks=[sending], **SAVING)
    with pytest.raises(
        TrainingInterrupted, match=rf"{number.name} after step 5: everything is saved in .*checkpoint-5"
    ) as stop:
        trainer.train()
    assert stop.value.signal == number
    assert [path.name for path in whole_checkpoints(tmp_path / "stopped")] == ["checkpoint-3", "checkpoint-5"]
    assert handlers == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    make_trainer(tmp_path / "stopped", images, make_model("clip"), **SAVING).train(resume_from_checkpoint=True)
    assert_same_checkpoints(tmp_path / "straight" / "checkpoint-9", tmp_path / "stopped" / "checkpoint-9")


def test_a_signal_inside_an_epoch_does_not_end_it(tmp_path, images):
    """No evaluation in the seconds that a scheduler leaves, and no second saving over the checkpoint."""

    class Saves(TrainerCallback):
        steps: list[int] = []

        def on_save(self, args, state, control, **kwargs):
            self.steps.append(state.global_step)

    sending = At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    trainer = make_trainer(
        *(tmp_path, images, make_model("clip")),
        callbacks=[sending, Saves(), EvaluateEvery(1)],
        eval_dataset={"few": images.select(range(5))},
        num_train_epochs=3,
        save_strategy="epoch",
    )
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    assert trainer.state.global_step == 5 and Saves.steps == [5]
    assert not any("eval_few_srcc" in record for record in trainer.state.log_history)


def test_a_second_signal_ends_at_once(tmp_path, images):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    trainer = make_trainer(tmp_path, images, callbacks=[At(4, twice)], **SAVING)
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.train()
    assert not isinstance(stop.value, TrainingInterrupted)
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-3"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loss_that_is_not_a_number_stops_with_the_names(tmp_path, images, workers):
    model = make_model()
    spoil = At(4, lambda: model.quality_head.weight.data.fill_(torch.nan))
    options = SAVING | {"dataloader_num_workers": workers}
    trainer = make_trainer(tmp_path, images, model, callbacks=[spoil], **options)
    with pytest.raises(
        ValueError, match=r"The loss is nan after step 4, these images got scores that are NaN or infinite"
    ) as error:
        trainer.train()
    message = str(error.value)
    named = [path for path in images["image"] if path in message]
    assert len(named) == 4 and "\n" not in message  # the batch
    assert f"the last checkpoint is {tmp_path / 'checkpoint-3'}" in message
    saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values())


def test_only_the_images_whose_scores_are_not_numbers_are_named(tmp_path, images):
    trainer = make_trainer(tmp_path, images, loss_type="l1", scene_sampling=0, max_steps=1)
    forward = trainer.model.forward

    def one_bad(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.quality = output.quality + torch.tensor([0.0, torch.inf, 0.0, 0.0])
        return output

    trainer.model.forward = one_bad
    with pytest.raises(ValueError, match="The loss is inf after step 0") as error:
        trainer.train()
    assert sum(path in str(error.value) for path in images["image"]) == 1


def test_a_disk_that_fills_up_leaves_the_checkpoints_before(tmp_path, images, small_files):
    trainer = make_trainer(tmp_path, images, callbacks=[At(4, lambda: small_files(1000))], **SAVING)
    with pytest.raises(ValueError, match=r"checkpoint-6: cannot be saved \(.*resume from .*checkpoint-3") as error:
        trainer.train()
    small_files(resource.RLIM_INFINITY)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    make_trainer(tmp_path, images, **SAVING).train(resume_from_checkpoint=True)
    assert whole_checkpoints(tmp_path)[-1].name == "checkpoint-9"


def test_a_checkpoint_is_on_the_disk_before_older_ones_are_removed(tmp_path, images, monkeypatch):
    synced = set()
    fsync, rotate = os.fsync, transformers.trainer.rotate_checkpoints

    def record(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def check(*args, **kwargs):
        newest = whole_checkpoints(tmp_path)[-1]
        assert {str(path) for path in newest.rglob("*")} | {str(newest)} <= synced
        rotate(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(transformers.trainer, "rotate_checkpoints", check)
    make_trainer(tmp_path, images, **SAVING | {"save_total_limit": 1}).train()
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-9"]


def test_a_model_that_cannot_be_saved_leaves_the_one_before(tmp_path, images, small_files):
    trainer = make_trainer(tmp_path, images, max_steps=1)
    trainer.save_model()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer.model.quality_head.weight.data += 1
    small_files(10_000)
    with pytest.raises(ValueError, match=r"cannot be saved \(.*\); the earlier files are unchanged"):
        trainer.save_model()
    small_files(resource.RLIM_INFINITY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(tmp_path, images):
    make_trainer(tmp_path, images, **SAVING).train()
    (tmp_path / "checkpoint-9" / "trainer_state.json").unlink()
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-6"]
    (tmp_path / "checkpoint-9" / "model.safetensors").write_bytes(b"half")
    trainer = make_trainer(tmp_path, images, **SAVING)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 9
    with pytest.raises(ValueError, match="there is no checkpoint to resume from"):
        make_trainer(tmp_path / "empty", images, **SAVING).train(resume_from_checkpoint=True)


def test_whole_checkpoints_are_ordered_by_step(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


def test_a_killed_loader_is_named_and_training_goes_on(tmp_path, images, monkeypatch):
    make_views, main = SindImageProcessor.make_views, os.getpid()

    def make_or_die(self, *args):
        if os.getpid() != main and list(tmp_path.glob("checkpoint-3/trainer_state.json")):
            os.kill(os.getpid(), signal.SIGKILL)
        return make_views(self, *args)

    monkeypatch.setattr(SindImageProcessor, "make_views", make_or_die)
    trainer = make_trainer(tmp_path, images, dataloader_num_workers=2, **SAVING | {"max_steps": 30})
    with pytest.raises(ValueError, match=rf"has died \(Killed\), .*; resume from the last .* in {tmp_path}") as error:
        trainer.train()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    trainer = make_trainer(tmp_path, images, dataloader_num_workers=2, **SAVING | {"max_steps": 12})
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_vanish_while_training_are_named(tmp_path, images, workers):
    copies = [shutil.copy(path, tmp_path) for path in images["image"]]
    copied = images.remove_columns("image").add_column("image", copies)
    gone = copies[7]
    remove = At(4, lambda: Path(gone).unlink())
    options = SAVING | {"dataloader_num_workers": workers, "max_steps": 30}
    trainer = make_trainer(tmp_path / "run", copied, callbacks=[remove], **options)
    with pytest.raises(ValueError, match=rf"row 7 of the dataset: {gone}: no such file$"):
        trainer.train()
    assert whole_checkpoints(tmp_path / "run")


class Payload:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("trained")
    make_trainer(folder, images, ema_decay=0.9, **SAVING | {"max_steps": 3}).train()
    return folder / "checkpoint-3"


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state_1.pth", "pytorch_model.bin"])
def test_a_pipe_in_a_checkpoint_is_named_and_not_waited_for(tmp_path, images, checkpoint, file):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint-3"))
    (copy / file).unlink(missing_ok=True)
    os.mkfifo(copy / file)
    trainer = make_trainer(tmp_path, images, ema_decay=0.9, **SAVING | {"max_steps": 6})
    with pytest.raises(ValueError, match=rf"^{copy / file}: is not a regular file; remove it"):
        trainer.train(resume_from_checkpoint=str(copy))


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "training_weights.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "config.json",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "empty", "pickle"])
def test_a_damaged_checkpoint_is_named(tmp_path, images, checkpoint, file, damage):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint-3"))
    if damage == "cut":
        (copy / file).write_bytes((copy / file).read_bytes()[:-40])
    elif damage == "empty":
        (copy / file).write_bytes(b"")
    else:
        torch.save({"state": Payload(tmp_path / "ran")}, copy / file)
    trainer = make_trainer(tmp_path, images, ema_decay=0.9, **SAVING | {"max_steps": 6})
    with pytest.raises(
        ValueError, match=rf"^{copy / file}: damaged \(.*\); resume from another checkpoint\.$"
    ) as error:
        trainer.train(resume_from_checkpoint=str(copy))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
