"""A model with PEFT adapters: what the trainer saves loads as the same model, and training resumes from it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from helpers.checkpoint_comparison import assert_same
from helpers.tiny_training import make_model, make_processor, make_trainer
from sind_hf import SindConfig, SindModel
from sind_hf.checkpoints import load_checkpoint

peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
]
OPTIONS = {
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "ema_decay": 0.5,
    "learning_rate": 0.05,
    "loss_type": "l2",
}


def adapted(seed: int = 0):
    torch.manual_seed(seed)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "quality_head"], modules_to_save=["visual_projection"])
    return peft.get_peft_model(make_model("clip"), lora)


def test_a_saved_adapter_loads_as_the_same_calibrated_model(tmp_path, images):
    trainer = make_trainer(tmp_path, images, adapted(), **OPTIONS)
    trainer.train()
    config = trainer.model.config
    config.score_scale, config.score_shift, config.score_range = 3.0, 10.0, [0.0, 60.0]  # as a calibration does
    trainer.save_model()
    trainer.create_model_card()
    files = list(images["image"][:6])
    expected = trainer.predict(images.select(range(6))).predictions.tolist()
    assert (tmp_path / "adapter_config.json").exists()
    for model in (SindModel.from_pretrained(tmp_path), load_checkpoint(str(tmp_path), device="cpu")[0]):
        assert (model.config.score_scale, model.config.score_range) == (3.0, [0.0, 60.0])
        assert model.score(files, make_processor(), views="center") == pytest.approx(expected, rel=1e-4)
    without = SindModel(SindConfig.from_pretrained(tmp_path)).eval()
    without.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert without.score(files, make_processor(), views="center") != pytest.approx(expected, rel=1e-4)
    card = (tmp_path / "README.md").read_text()
    assert "SIND" in card and "PEFT" not in card


def test_training_an_adapter_resumes_bit_for_bit(tmp_path, images):
    straight = make_trainer(tmp_path / "straight", images, adapted(), **OPTIONS)
    straight.train()
    resumed = make_trainer(tmp_path / "straight", images, adapted(seed=1), **OPTIONS)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert_same(straight.model.state_dict(), resumed.model.state_dict())
