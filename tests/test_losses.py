from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sind_hf.losses import LOSSES, by_scene, get_loss

Vector = npt.NDArray[np.float64]


# --- the formulas of the method once more, in float64 NumPy with plain loops -----------------------------------------


def aligned(x: Vector, floor: float = 1e-3) -> Vector:
    centered = x - np.sort(x)[(len(x) - 1) // 2]
    return centered / max(np.abs(centered).mean(), floor)


def standardized(x: Vector, floor: float = 1e-3) -> Vector:
    return (x - x.mean()) / max(float(x.std()), floor)


NO_FLOOR = 1e-12  # for opinion scores: 0 / 0 is 0


def reference(name: str, p: Vector, y: Vector) -> float:
    if "+" in name:
        return sum(reference(part, p, y) for part in name.split("+"))
    pairs = [(i, j) for i in range(len(p)) for j in range(i + 1, len(p))]
    if name == "l1":
        return float(np.abs(p - y).mean())
    if name == "l2":
        return float(((p - y) ** 2).mean())
    if name == "huber":
        error = np.abs(p - y)
        return float(np.where(error < 1, error**2 / 2, error - 0.5).mean())
    if name == "scale_shift":
        return float(np.abs(aligned(p) - aligned(y, NO_FLOOR)).mean())
    if name == "plcc":
        return float(np.abs(standardized(p) - standardized(y, NO_FLOOR)).mean())
    if name == "scale_shift_ls":
        a, b = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), standardized(y, NO_FLOOR), rcond=None)[0]
        return reference("plcc", p, y) if a < 0 else float(np.abs(a * p + b - standardized(y, NO_FLOOR)).mean())
    if name == "rank":
        terms = [
            max(0.0, (a - b) * np.sign(v - u)) for a, u in zip(p, y, strict=True) for b, v in zip(p, y, strict=True)
        ]
        return sum(terms) / len(p) / (1 + max(terms))
    if name == "fidelity":
        total = 0.0
        for i, j in pairs:
            wins = 0.5 * (1 + math.erf((p[i] - p[j]) / math.sqrt(2)))
            truth = 0.5 if y[i] == y[j] else float(y[i] > y[j])
            total += 1 - math.sqrt(wins * truth + 1e-8) - math.sqrt((1 - wins) * (1 - truth) + 1e-8)
        return total / len(pairs) if pairs else 0.0
    if name == "kld":
        total = 0.0
        for i, j in pairs:
            first = 1 / (1 + math.exp(p[j] - p[i]))
            total += 1 - math.sqrt(first * (y[i] >= y[j]) + 1e-8) - math.sqrt((1 - first) * (y[i] <= y[j]) + 1e-8)
        return total / len(pairs) if pairs else 0.0
    raise AssertionError(f"no reference for {name}")


def sample(seed: int, n: int = 24) -> tuple[Vector, Vector]:
    """Related scores with ties in both; even n, so that the lower median differs from the usual one."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 12, n).astype(np.float64)
    p = np.round(0.3 * y + generator.normal(0, 1.5, n), 1)
    return p, y


def loss_of(name: str, p: Vector, y: Vector, scenes: list[int] | None = None) -> float:
    ids = None if scenes is None else torch.tensor(scenes)
    return by_scene(torch.tensor(p), torch.tensor(y), ids, name).item()


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formula(name: str, seed: int) -> None:
    p, y = sample(seed)
    assert loss_of(name, p, y) == pytest.approx(reference(name, p, y), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_formula_on_reversed_order(name: str) -> None:
    p, y = sample(5)
    assert loss_of(name, -p, y) == pytest.approx(reference(name, -p, y), rel=1e-5, abs=1e-6)


def test_values_by_hand() -> None:
    # p: lower median 1, deviations 1 0 2 5 -> mean 2.  y: lower median 2, deviations 2 0 2 4 -> mean 2.
    p, y = np.array([0.0, 1, 3, 6]), np.array([0.0, 2, 4, 6])
    assert loss_of("scale_shift", p, y) == pytest.approx((0.5 + 0 + 0 + 0.5) / 4)
    assert loss_of("l1", p, y) == 0.5
    assert loss_of("l2", p, y) == 0.5
    assert loss_of("huber", p, y) == 0.25
    # One pair in the wrong order by 2, seen from both sides: (2 + 2) / (2 · (1 + 2)).
    assert loss_of("rank", np.array([2.0, 0]), np.array([0.0, 1])) == pytest.approx(2 / 3)
    # Equal predictions of a decided pair: half the probability goes to each side.
    assert loss_of("fidelity", np.zeros(2), np.array([0.0, 1])) == pytest.approx(1 - math.sqrt(0.5), abs=1e-3)
    assert loss_of("kld", np.zeros(2), np.array([1.0, 0])) == pytest.approx(1 - math.sqrt(0.5), abs=1e-3)


def test_committed_values(golden: Path) -> None:
    cases = json.loads((golden / "losses.json").read_text())
    for case in cases:
        for name, value in case["by_scene"].items():
            found = loss_of(name, np.array(case["prediction"]), np.array(case["target"]), case["scene"])
            assert found == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert set(cases[0]["by_scene"]) == set(LOSSES)


def test_parity_with_the_published_code(shared: Path) -> None:
    compared = 0
    for case in json.loads((shared / "reference/parity/losses.json").read_text()):
        for name, value in case["by_scene"].items():
            found = loss_of(name, np.array(case["prediction"]), np.array(case["target"]), case["scene"])
            assert found == pytest.approx(value, rel=1e-5), name
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", LOSSES)
def test_is_the_mean_over_the_scenes_present(name: str) -> None:
    p, y = sample(8, 12)
    scenes = [7, 7, 2, 2, 2, 2, 7, 40, 40, 40, 2, 7]  # ids as they come: gaps, no order, unequal sizes
    members = [np.array([i for i, scene in enumerate(scenes) if scene == present]) for present in (7, 2, 40)]
    expected = np.mean([reference(name, p[m], y[m]) for m in members])
    assert loss_of(name, p, y, scenes) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert loss_of(name, p, y, scenes) != pytest.approx(reference(name, p, y), rel=1e-3)


def test_the_order_of_the_batch_does_not_matter() -> None:
    p, y = sample(9, 12)
    scenes = np.array([0, 1, 2] * 4)
    order = np.random.default_rng(0).permutation(12)
    for name in LOSSES:
        shuffled = loss_of(name, p[order], y[order], scenes[order].tolist())
        assert shuffled == pytest.approx(loss_of(name, p, y, scenes.tolist()), rel=1e-4, abs=1e-6), name


# --- properties ------------------------------------------------------------------------------------------------------

SCORES = arrays(np.float64, st.integers(2, 20), elements=st.integers(-40, 40).map(float))


@settings(max_examples=60, deadline=None)
@given(p=SCORES, scale=st.floats(0.1, 50), shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_alignment_ignores_scale_and_shift(p: Vector, scale: float, shift: float, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 30, len(p)).astype(np.float64)
    # What rounding leaves of a constant's deviation is divided by the floor of 1e-3.
    close = {"rel": 1e-3, "abs": 1e-3 if p.std() * y.std() > 0 else 0.2}
    for name in ("scale_shift", "plcc", "scale_shift_ls"):
        plain = loss_of(name, p, y)
        # The fit of scale_shift_ls changes formula at a correlation of 0, where float32 may fall on either side.
        if name == "scale_shift_ls" and (p.std() * y.std() == 0 or abs(np.corrcoef(p, y)[0, 1]) < 1e-4):
            continue
        assert loss_of(name, scale * p + shift, y) == pytest.approx(plain, **close), name
        assert loss_of(name, p, scale * y + shift) == pytest.approx(plain, **close), name


@settings(max_examples=60, deadline=None)
@given(y=SCORES, scale=st.floats(0.1, 50), shift=st.floats(-50, 50))
def test_a_perfect_linear_prediction_costs_nothing(y: Vector, scale: float, shift: float) -> None:
    for name in ("scale_shift", "plcc", "scale_shift_ls", "rank"):
        assert loss_of(name, scale * y + shift, y) == pytest.approx(0, abs=1e-3 if y.std() > 0 else 0.2), name


@settings(max_examples=60, deadline=None)
@given(p=SCORES, shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_pairwise_losses_ignore_shift_and_monotone_changes_of_the_target(p: Vector, shift: float, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 30, len(p)).astype(np.float64)
    for name in ("rank", "fidelity", "kld"):
        plain = loss_of(name, p, y)
        assert loss_of(name, p + shift, y) == pytest.approx(plain, rel=1e-3, abs=1e-4), name
        assert loss_of(name, p, y**3) == pytest.approx(plain, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("name", ["scale_shift", "plcc", "scale_shift_ls", "rank", "fidelity", "kld"])
def test_descending_the_gradient_orders_the_predictions(name: str) -> None:
    """A loss whose gradient has the wrong sign somewhere would not get there."""
    y = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0, 8.0])
    p = torch.tensor([0.3, 0.7, -0.4, 0.9, -0.2, 0.5, 0.1, -0.6], requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        by_scene(p, y, name=name).backward()
        optimizer.step()
    ranks = torch.corrcoef(torch.stack([p.detach().argsort().argsort(), y.argsort().argsort()]).float())
    assert ranks[0, 1] > (0.85 if name == "rank" else 0.95)  # rank's terms vanish where predictions meet


@pytest.mark.parametrize(
    "scale, shift", [(1.0, 1e9), (1e-4, 0.0), (1e-4, 3.0), (1e-12, 0.0), (1e200, 0.0), (3.0, -1e12)]
)
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("l1", "l2", "huber")])
def test_the_scale_of_the_opinion_scores_does_not_matter(name: str, scale: float, shift: float) -> None:
    p, _ = sample(6, 32)
    y = np.round(np.random.default_rng(6).uniform(0, 3, 32), 2)
    scenes = [0, 1] * 16
    other = np.where(np.arange(32) % 2 == 0, y, scale * y + shift)  # one scene as it was, one on another scale
    assert loss_of(name, p, other, scenes) == pytest.approx(loss_of(name, p, y, scenes), rel=1e-3), name
    gradients = []
    for target in (y, other):
        prediction = torch.tensor(p, requires_grad=True)
        by_scene(prediction, torch.tensor(target), torch.tensor(scenes), name).backward()
        gradients.append(prediction.grad)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", ["scale_shift", "scale_shift_ls", "plcc"])
def test_rounding_errors_of_equal_scores_make_no_order(name: str) -> None:
    p = np.array([0.4, 0.1, 0.9])
    for equal in (np.array([0.3, 0.1 + 0.2, 0.3]), np.array([1e9, 1e9 + 1e-7, 1e9])):
        assert loss_of(name, p, equal) == pytest.approx(loss_of(name, p, np.full(3, 5.0)), rel=1e-6)


def test_losses_without_alignment_keep_the_unit_of_the_scores() -> None:
    p, y = np.array([1.0, 2.0]), np.array([1e-4, 3e-4])
    assert loss_of("l1", p, 1000 * y) == pytest.approx(np.abs(p - 1000 * y).mean())
    assert loss_of("l2", p, 1000 * y) == pytest.approx(((p - 1000 * y) ** 2).mean())


# --- degenerate scenes -----------------------------------------------------------------------------------------------

DEGENERATE = {
    "one image": ([0.4], [55.0]),
    "constant scores": ([0.4, 0.1, 0.9], [55.0, 55.0, 55.0]),
    "constant predictions": ([0.4, 0.4, 0.4], [15.0, 55.0, 70.0]),
    "both constant": ([0.4, 0.4], [55.0, 55.0]),
    "nearly constant predictions": ([0.4, 0.4 + 1e-5, 0.4 - 1e-5], [15.0, 55.0, 70.0]),
    "nearly constant scores": ([0.4, 0.1, 0.9], [1.0, 1.0 + 1e-5, 1.0 - 1e-5]),
    "far apart": ([-300.0, 0.0, 300.0], [100.0, 50.0, 0.0]),
}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16 autocast"])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", LOSSES)
def test_degenerate_scenes_give_finite_losses_and_bounded_gradients(name: str, case: str, autocast: bool) -> None:
    values, scores = DEGENERATE[case]
    p = torch.tensor(values, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = by_scene(p, torch.tensor(scores), name=name)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert torch.isfinite(loss)
    assert p.grad is not None and torch.isfinite(p.grad).all()
    # 1 / FLOOR = 1000 per image; the published epsilon reaches 3e7.
    assert p.grad.abs().max() <= 4e3
    assert loss.item() == pytest.approx(reference(name, np.float32(values), np.float32(scores)), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_inputs_are_computed_in_float32(name: str) -> None:
    p, y = sample(3)
    rounded = torch.tensor(p).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = by_scene(rounded, torch.tensor(y), name=name)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(reference(name, rounded.double().numpy(), y), rel=1e-5, abs=1e-6)


# --- use -------------------------------------------------------------------------------------------------------------


def test_columns_and_integer_scores_are_accepted() -> None:
    p, y = sample(1)
    column = by_scene(
        torch.tensor(p)[:, None], torch.tensor(y).long()[:, None], torch.zeros(len(p), 1, dtype=torch.long)
    )
    assert column.item() == pytest.approx(loss_of("scale_shift", p, y))


def test_an_unknown_name_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown loss 'scale_shfit'\. Did you mean 'scale_shift'") as error:
        get_loss("scale_shfit")
    assert all(name in str(error.value) for name in LOSSES)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="Unknown loss"):
        by_scene(torch.zeros(2), torch.zeros(2), name="mse")


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        (((4,), (3,), None), r"\(4,\), \(3,\)"),
        (((4,), (4,), (3,)), r"\(4,\), \(4,\), \(3,\)"),
        (((0,), (0,), None), r"\(0,\)"),
        (((4, 4), (4,), None), r"\(4, 4\)"),
    ],
)
def test_wrong_shapes_are_named(shapes: tuple, named: str) -> None:
    p, y, scenes = (None if shape is None else torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=named):
        by_scene(p, y, scenes)


def test_equal_large_predictions_leave_no_rounding_error():
    """The mean of many equal numbers is not always that number in float32; the floor would magnify the difference."""
    target = torch.linspace(0, 1, 33)
    standardized = (target - target.mean()) / target.std(correction=0)
    loss = LOSSES["plcc"](torch.full((33,), 601.7), target)
    assert loss.item() == pytest.approx(standardized.abs().mean().item(), abs=1e-6)
