from __future__ import annotations

import io
import warnings
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from transformers import Trainer, TrainingArguments, default_data_collator

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.sampling import Draw, SceneBatchSampler
from sind_hf.data.views import ViewDataset
from sind_hf.image_processing_sind import ImageError
from sind_hf.losses import by_scene

PROCESSOR = SindImageProcessor(size={"height": 56, "width": 56})


def image(index, size=(90, 70)):
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    paths = [str(folder / f"{index}.png") for index in range(8)]
    for index, path in enumerate(paths):
        image(index).save(path)
    return {"image": paths, "score": [index / 3 for index in range(8)], "scene": list("abababab")}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in ("pixel_values", "local_pixel_values"))


def test_an_item_holds_both_views_score_and_scene(rows):
    item = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "center")[5]
    whole, local = PROCESSOR.make_views(image(5), "center")
    assert torch.equal(item["pixel_values"], torch.from_numpy(whole[0]))
    assert torch.equal(item["local_pixel_values"], torch.from_numpy(local[0]))
    assert item["pixel_values"].dtype == torch.uint8
    assert item["labels"].dtype == torch.float64 and item["labels"] == 5 / 3
    assert item["scene_ids"].dtype == torch.int64 and item["scene_ids"] == 1


def test_nine_views_have_a_dimension_of_their_own(rows):
    item = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "nine")[0]
    whole, local = PROCESSOR.make_views(image(0), "nine")
    assert torch.equal(item["pixel_values"], torch.from_numpy(whole))
    assert torch.equal(item["local_pixel_values"], torch.from_numpy(local))


def test_columns_are_found_by_name_and_scenes_come_in_any_form(rows):
    plain = {"photo": rows["image"], "mos": rows["score"]}
    columns = {"image_column": "photo", "score_column": "mos", "scene_column": "place"}
    named = Features({"photo": Value("string"), "mos": Value("float64"), "place": ClassLabel(names=["sea", "city"])})
    cases = [
        (Dataset.from_dict(plain | {"place": [1, 0] * 4}, features=named), ["sea", "city"], [1, 0] * 4),
        (Dataset.from_dict(plain | {"place": [7, 3] * 4}), ["3", "7"], [1, 0] * 4),
        (Dataset.from_dict(plain | {"place": ["b", "a"] * 4}), ["a", "b"], [1, 0] * 4),
    ]
    for dataset, names, ids in cases:
        views = ViewDataset(dataset, PROCESSOR, "center", **columns)
        assert (views.scene_names, views.scenes.tolist()) == (names, ids)
        assert views[2]["scene_ids"] == 1
    for without in (
        ViewDataset(Dataset.from_dict(plain), PROCESSOR, "center", image_column="photo", score_column="mos"),
        ViewDataset(cases[0][0], PROCESSOR, "center", **columns | {"scene_column": None}),
    ):
        assert without.scenes is None and without.scene_names is None and without[2]["scene_ids"] == 0


def test_images_are_loaded_by_our_loader_whatever_the_column_holds(rows, tmp_path):
    """Upright and on white: `datasets` would decode neither."""
    turned = Image.new("RGBA", (90, 60), (255, 0, 0, 0))
    turned.putpixel((0, 0), (0, 0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    turned.save(path, exif=exif)
    expected, _ = PROCESSOR.make_views(str(path), "center")
    assert expected.max() == 255 and expected.mean() > 250
    scores = {"score": [1.0]}
    paths = Dataset.from_dict({"image": [str(path)]} | scores)
    decoded = paths.cast_column("image", datasets.Image())
    embedded = Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None}]} | scores).cast_column(
        "image", datasets.Image()
    )
    with_transform = decoded.with_transform(lambda batch: {"image": [str(path)] * len(batch["image"])})
    for dataset in (paths, decoded, embedded, with_transform):
        assert np.array_equal(ViewDataset(dataset, PROCESSOR, "center")[0]["pixel_values"], expected[0])


def test_selected_rows_are_those_of_the_selection(rows):
    selected = ViewDataset(Dataset.from_dict(rows).select([6, 1]), PROCESSOR, "center")
    assert len(selected) == 2 and selected.scores.tolist() == [2.0, 1 / 3]
    assert same(selected[0], ViewDataset(Dataset.from_dict(rows), PROCESSOR, "center")[6])


def test_random_views_depend_on_seed_epoch_and_position_only(rows):
    views = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "train", seed=3)
    first = views[Draw(2, 5, 11)]
    np.random.seed(9)
    torch.manual_seed(9)
    assert same(views[Draw(2, 5, 11)], first)
    expected, _ = PROCESSOR.make_views(image(2), "train", np.random.default_rng([3, 5, 11]))
    assert torch.equal(first["pixel_values"], torch.from_numpy(expected[0]))
    for other in (Draw(2, 6, 11), Draw(2, 5, 12)):
        assert not torch.equal(views[other]["pixel_values"], first["pixel_values"])
        assert not torch.equal(views[other]["local_pixel_values"], first["local_pixel_values"])
    other_seed = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "train", seed=4)
    assert not same(other_seed[Draw(2, 5, 11)], first)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(rows, persistent):
    views = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "train", seed=1)

    def epochs(**options):
        sampler = SceneBatchSampler(views.scenes, 4, 2, seed=1)
        loader = DataLoader(views, batch_sampler=sampler, collate_fn=default_collate, **options)
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            yield from loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of processes with threads
        worked = list(epochs(num_workers=2, persistent_workers=persistent))
    plain = list(epochs(num_workers=0))
    assert len(plain) == len(worked) == 4
    for one, other in zip(plain, worked, strict=True):
        assert same(one, other) and torch.equal(one["labels"], other["labels"])
    # the same image in another epoch is cut at another place
    by_score = [
        {
            float(score): view
            for batch in half
            for score, view in zip(batch["labels"], batch["pixel_values"], strict=True)
        }
        for half in (plain[:2], plain[2:])
    ]
    assert by_score[0].keys() == by_score[1].keys() and len(by_score[0]) == 8
    assert sum(torch.equal(by_score[0][score], by_score[1][score]) for score in by_score[0]) <= 1


def test_repeated_images_are_cut_at_different_places(rows):
    small = ViewDataset(Dataset.from_dict(rows).select([0, 1]), PROCESSOR, "train")
    sampler = SceneBatchSampler(small.scenes, 6, 2)
    (batch,) = DataLoader(small, batch_sampler=sampler)
    assert Counter(batch["labels"].tolist()) == {0.0: 3, 1 / 3: 3}
    crops = {
        (float(score), view.numpy().tobytes())
        for score, view in zip(batch["labels"], batch["local_pixel_values"], strict=True)
    }
    assert len(crops) == 6


def test_random_views_need_a_draw(rows):
    with pytest.raises(ValueError, match="Random views need a Draw"):
        ViewDataset(Dataset.from_dict(rows), PROCESSOR, "train")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, r"no image column 'image'; it has 'score', 'scene'\. Rename one, or set image_column"),
        ({"score": None}, r"no score column 'score'; it has 'image', 'scene'\. Rename one, or set score_column"),
        (
            {"score": [1.0, 2.0, float("nan"), 3, 4, 5, float("inf"), 7]},
            "no finite number for 2 images, first in row 2",
        ),
        ({"score": [1.0, None, 2, 3, 4, 5, 6, 7]}, "no finite number for 1 image, first in row 1"),
        ({"score": ["good"] * 8}, "score column 'score' does not hold one number per image"),
        ({"score": [[1.0, 2.0]] * 8}, "score column 'score' does not hold one number per image"),
        ({"scene": ["a", "b", None, "a", None, "b", "b", "b"]}, "empty for 2 images, first in row 2"),
        ({"scene": [["a", "b"]] * 8}, "scene column 'scene' does not hold one scene per image"),
    ],
)
def test_unusable_columns_are_refused_in_one_line(rows, change, message):
    columns = {name: values for name, values in (rows | change).items() if values is not None}
    with pytest.raises(ValueError, match=message) as caught:
        ViewDataset(Dataset.from_dict(columns), PROCESSOR, "center")
    assert "\n" not in str(caught.value)


def test_classes_without_a_class_are_refused(rows):
    features = Features({"image": Value("string"), "score": Value("float64"), "scene": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict(rows | {"scene": [0, 1, 0, -1, 0, 1, 0, 1]}, features=features)
    with pytest.raises(ValueError, match="empty for 1 image, first in row 3"):
        ViewDataset(dataset, PROCESSOR, "center")


def test_other_kinds_of_dataset_are_refused(rows):
    with pytest.raises(ValueError, match="Expected a datasets.Dataset, got list"):
        ViewDataset([rows], PROCESSOR, "center")


def test_a_truncated_image_is_named_by_row_and_file(rows, tmp_path):
    whole = io.BytesIO()
    image(0, (300, 200)).save(whole, "JPEG")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(whole.getvalue()[:2000])
    images = [*rows["image"][:3], str(broken), *rows["image"][4:]]
    dataset = Dataset.from_dict(rows | {"image": images})
    for each in (dataset, dataset.cast_column("image", datasets.Image())):
        views = ViewDataset(each, PROCESSOR, "train")
        assert views.image_name(3) == str(broken)
        with pytest.raises(ImageError, match=r"row 3 of the dataset: .*broken\.jpg: damaged") as caught:
            views[Draw(3, 0, 0)]
        assert "\n" not in str(caught.value)


def test_the_plain_trainer_trains_on_views(rows, tmp_path):
    """No part of ours but model and views: default collator, column removal, loss and predictions by the Trainer."""
    vision = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    torch.manual_seed(0)
    model = SindModel(SindConfig(vision_config=vision, view_size=56, loss_type="plcc"))
    views = ViewDataset(Dataset.from_dict(rows), PROCESSOR, "center")
    batch = default_data_collator([views[index] for index in range(8)])
    before = model.train()(**batch).loss
    assert before == by_scene(model(**batch).quality, batch["labels"], batch["scene_ids"], "plcc")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=12,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=views, eval_dataset=views)
    trainer.train()
    with torch.no_grad():
        assert model.train()(**batch).loss < 0.7 * before
    output = trainer.predict(views)
    assert output.predictions.shape == (8,)
    assert output.label_ids.tolist() == rows["score"]
    assert np.isfinite(output.metrics["test_loss"])
