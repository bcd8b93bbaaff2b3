"""The loss of pretraining: within photographs, over the batch, and over fragments that are flipped with their view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.preparation import prepare
from sind_hf.data.prepared import load_prepared
from sind_hf.data.sampling import Draw
from sind_hf.losses import by_scene
from sind_hf.pretraining.trainer import LEAST_FALL, MARGIN, FragmentViews, PretrainingTrainer, order_loss
from sind_hf.training.arguments import SindTrainingArguments

SIDE = 56


@pytest.fixture(scope="module")
def prepared(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = next(iter(photographs.values())).parent
    entries = [
        ManifestEntry(path.name, float(number), f"s{number % 2}", number % 2)
        for number, path in enumerate(photographs.values())
    ]
    manifest = Manifest("set", entries, ScoreInfo("rank", None), {0: "s0", 1: "s1"})
    folder = tmp_path_factory.mktemp("prepared")
    prepare(manifest, root, folder, view_size=SIDE)
    return load_prepared(folder)


@pytest.fixture(scope="module")
def fragments(prepared: Dataset) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {image: rng.random((7, 7)).astype(np.float32) for image in prepared["image"][:]}


def test_fragments_are_flipped_with_their_view(prepared: Dataset, fragments: dict[str, np.ndarray]) -> None:
    processor = SindImageProcessor(size={"height": SIDE, "width": SIDE})
    views = FragmentViews(prepared, processor, "train", fragments=fragments)
    seen = set()
    for position in range(12):
        draw = Draw(3, 0, position)
        sample, plan = views[draw], views.plan(draw)
        expected = fragments[views.image_name(3)]
        seen.add(plan.flip_local)
        np.testing.assert_array_equal(sample["fragment_labels"], expected[:, ::-1] if plan.flip_local else expected)
        # The plan is that of the views: the fragments themselves are flipped.
        local = views._prepared[3].local_picture
        top, left = plan.rows[0], plan.columns[0]
        corner = local[top : top + 8, left : left + 8].transpose(2, 0, 1)
        shown = (
            sample["local_pixel_values"][:, :8, -8:].flip(-1)
            if plan.flip_local
            else sample["local_pixel_values"][:, :8, :8]
        )
        np.testing.assert_array_equal(shown, corner)
    assert seen == {True, False}


def test_plans_need_prepared_pictures(photographs: dict[str, Path]) -> None:
    from sind_hf.data.views import ViewDataset

    dataset = Dataset.from_dict({"image": [str(path) for path in photographs.values()], "score": [0.0] * 10})
    views = ViewDataset(dataset, SindImageProcessor(), "train")
    with pytest.raises(ValueError, match="Only the views of prepared pictures"):
        views.plan(Draw(0, 0, 0))


@pytest.fixture
def trainer(prepared: Dataset, fragments: dict[str, np.ndarray], tmp_path: Path) -> PretrainingTrainer:
    """Of a tiny network, every second picture being in a ladder; the order of levels weighs 2."""
    torch.manual_seed(0)
    vision: dict[str, Any] = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    model = SindModel(SindConfig(vision_config=vision, view_size=SIDE))
    arguments = SindTrainingArguments(
        output_dir=str(tmp_path),
        loss_type="plcc",
        scene_sampling=2,
        per_device_train_batch_size=8,
        max_steps=30,
        warmup_epochs=0,
        learning_rate=1e-2,
        ema_decay=0,
        calibrate=False,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    return PretrainingTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared,
        processing_class=SindImageProcessor(size={"height": SIDE, "width": SIDE}),
        fragments=fragments,
        ladders=prepared["image"][1::2],
        order=2.0,
    )


def test_the_loss_is_the_mean_of_three_and_the_order_of_ladders_and_training_lowers_it(
    trainer: PretrainingTrainer,
) -> None:
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch["scene_ids"][batch["in_ladder"]].tolist()) == {1} and int(batch["in_ladder"].sum()) == 4
    model = trainer.model.train()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
    parts = [
        by_scene(outputs.quality, batch["labels"], batch["scene_ids"], "plcc"),
        by_scene(outputs.quality, batch["labels"], None, "plcc"),
        by_scene(outputs.quality_map.flatten(), batch["fragment_labels"].flatten(), None, "plcc"),
    ]
    order = order_loss(outputs.quality, batch["labels"], batch["scene_ids"], batch["in_ladder"])
    assert float(loss) == pytest.approx(float(sum(parts)) / 3 + 2 * float(order), rel=1e-5)
    assert len({round(float(part), 6) for part in parts}) == 3
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_order_loss_asks_every_level_to_be_lower_than_the_one_before() -> None:
    labels = torch.tensor([5.0, 4, 3, 2, 1, 5, 1])
    scenes, in_ladder = torch.tensor([0, 0, 0, 0, 0, 1, 1]), torch.tensor([True] * 5 + [False] * 2)
    assert order_loss(labels, labels, scenes, in_ladder) == 0
    assert order_loss(7 * labels + 3, labels, scenes, in_ladder) == 0  # the scale is the batch's own
    # Scores with the deviation of the labels, two neighbours changed: steps of 1, 2, -1 and 2 where 1 is the label's.
    quality = torch.tensor([5.0, 4, 2, 3, 1, 5, 1])
    deviation = labels.std(correction=0)
    expected = (MARGIN + 1) / deviation / 4
    torch.testing.assert_close(order_loss(quality, labels, scenes, in_ladder), expected)
    shuffled = torch.tensor([3, 0, 6, 2, 4, 1, 5])
    again = order_loss(quality[shuffled], labels[shuffled], scenes[shuffled], in_ladder[shuffled])
    torch.testing.assert_close(again, expected)


def test_order_loss_asks_for_a_fall_where_labels_hardly_differ() -> None:
    """Ranks of what is worst lie close together; a picture that is worse still must be seen to be."""
    labels, quality = torch.tensor([5.0, 1, 0.999]), torch.tensor([5.0, 1, 1])
    found = order_loss(quality, labels, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor(LEAST_FALL / 2))
    equal = order_loss(quality, quality, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    assert equal == 0  # but the same picture twice is not asked to differ


def test_order_loss_where_nothing_can_be_compared() -> None:
    quality = torch.tensor([1.0, 2, 3, 4], requires_grad=True)
    scenes, none, both = torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    for labels, in_ladder in ((torch.arange(4.0), none), (torch.tensor([2.0, 2, 3, 3]), both)):
        loss = order_loss(quality, labels, scenes, in_ladder)
        (gradient,) = torch.autograd.grad(loss, quality)
        assert loss == 0 and gradient.tolist() == [0] * 4
    constant = torch.zeros(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(order_loss(constant, torch.arange(4.0), scenes, both), constant)
    assert gradient.isfinite().all()
