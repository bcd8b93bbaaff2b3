"""Bit-for-bit comparison of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Equal bit for bit, through dicts and lists."""
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


def assert_same_checkpoints(straight: Path, resumed: Path) -> None:
    """The averaged weights, the training's own, and the states of optimizer, schedule and random numbers."""
    average, weights = (load_file(straight / name) for name in ("model.safetensors", "training_weights.safetensors"))
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    assert_same(average, load_file(resumed / "model.safetensors"), "average")
    assert_same(weights, load_file(resumed / "training_weights.safetensors"), "weights")
    random_states = sorted(path.name for path in straight.glob("rng_state*.pth"))
    assert random_states
    for name in ("optimizer.pt", "scheduler.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (straight, resumed)]
        assert_same(*states, where=name)
    for name in random_states:
        # Python's and NumPy's states are there too, but nothing in training draws from them.
        states = [torch.load(folder / name, weights_only=False)["cpu"] for folder in (straight, resumed)]
        assert_same(*states, where=name)
