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
from sind_hf.pretraining.trainer import FragmentViews, PretrainingTrainer
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


def test_the_loss_is_the_mean_of_three_and_training_lowers_it(
    prepared: Dataset, fragments: dict[str, np.ndarray], tmp_path: Path
) -> None:
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
    trainer = PretrainingTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared,
        processing_class=SindImageProcessor(size={"height": SIDE, "width": SIDE}),
        fragments=fragments,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
    parts = [
        by_scene(outputs.quality, batch["labels"], batch["scene_ids"], "plcc"),
        by_scene(outputs.quality, batch["labels"], None, "plcc"),
        by_scene(outputs.quality_map.flatten(), batch["fragment_labels"].flatten(), None, "plcc"),
    ]
    assert float(loss) == pytest.approx(float(sum(parts)) / 3, rel=1e-5)
    assert len({round(float(part), 6) for part in parts}) == 3
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
