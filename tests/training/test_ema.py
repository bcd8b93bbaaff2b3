from __future__ import annotations

import pytest
import torch
from torch import nn

from sind_hf.training.ema import ExponentialMovingAverage


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def step(model):
    """Move weights and BatchNorm statistics, as an optimizer step does."""
    model.train()(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.99, 0.3])
def test_the_average_is_that_of_torch_ema(decay):
    model = small_model()
    average = ExponentialMovingAverage(model, decay)
    expected = {name: value.double() for name, value in state(model).items()}
    decays = []
    for n in range(1, 21):
        step(model)
        average.update(model, n)
        decays.append(min(decay, (1 + n) / (10 + n)))
        for name, parameter in model.named_parameters():  # torch_ema: s -= (1 - d)(s - p)
            expected[name] -= (1 - decays[-1]) * (expected[name] - parameter.detach())
    assert decays[0] == 2 / 11 and (decays[-1] == decay) == (decay == 0.3)

    other = small_model(1)
    average.copy_to(other)
    for name, value in other.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    for name, buffer in other.named_buffers():  # statistics are averages already
        assert torch.equal(buffer, dict(model.named_buffers())[name])
    assert other[1].num_batches_tracked == 20


def test_following_does_not_touch_the_model():
    model = small_model()
    average = ExponentialMovingAverage(model, 0.9)
    step(model)
    before = state(model)
    average.update(model, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averaged_weights_are_lent_and_the_own_ones_come_back_bit_for_bit():
    model = small_model()
    start = state(model)
    average = ExponentialMovingAverage(model, 0.9)
    step(model)
    own = state(model)
    storages = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(KeyError), average.averaged(model):
        assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
        assert [parameter.data_ptr() for parameter in model.parameters()] == storages  # the optimizer's are the same
        raise KeyError("an evaluation that fails")
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_changes_inside_the_loan_do_not_reach_the_average():
    model = small_model()
    average = ExponentialMovingAverage(model, 0.9)
    start = state(model)
    with average.averaged(model):
        step(model)
    average.copy_to(model)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_restart_forgets_the_past():
    model = small_model()
    average = ExponentialMovingAverage(model, 0.9)
    step(model)
    now = state(model)
    average.restart(model)
    step(model)
    average.copy_to(model)
    assert all(torch.equal(value, now[name]) for name, value in model.state_dict().items())


def test_frozen_weights_stay_exactly_as_they_are():
    model = small_model().requires_grad_(False)
    before = state(model)
    average = ExponentialMovingAverage(model, 0.99)
    for n in range(1, 50):
        average.update(model, n)
    average.copy_to(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
