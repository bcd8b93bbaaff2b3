from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import train_with_a_stop


def assert_same(first, second, where=""):
    """Bit for bit, through dicts and lists."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def assert_same_checkpoints(straight, resumed):
    average, weights = (load_file(straight / name) for name in ("model.safetensors", "training_weights.safetensors"))
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    assert_same(average, load_file(resumed / "model.safetensors"), "average")
    assert_same(weights, load_file(resumed / "training_weights.safetensors"), "weights")
    for name in ("optimizer.pt", "scheduler.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (straight, resumed)]
        assert_same(*states, where=name)


@pytest.mark.parametrize("backbone", ["resnet", "clip"])
@pytest.mark.parametrize(
    ("stop", "options"),
    [
        pytest.param(4, {"max_steps": 15}, id="inside-an-epoch"),
        pytest.param(6, {"max_steps": 15}, id="between-epochs"),
        pytest.param(2, {"max_steps": 7, "gradient_accumulation_steps": 2}, id="accumulation"),
        pytest.param(1, {"max_steps": 5, "gradient_accumulation_steps": 4}, id="uneven-accumulation"),
        pytest.param(4, {"max_steps": 15, "scene_sampling": 0}, id="without-scenes"),
        pytest.param(4, {"max_steps": 15, "dataloader_num_workers": 2}, id="workers"),
        *(
            pytest.param(
                stop,
                {"max_steps": 15, "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
                id=f"persistent-workers-{stop}",
            )
            for stop in (4, 6)
        ),
    ],
)
def test_stopped_and_resumed_equals_straight(tmp_path, pictures, backbone, stop, options):
    assert_same_checkpoints(*train_with_a_stop(tmp_path, pictures, backbone, stop, **options))
