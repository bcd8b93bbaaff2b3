from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from torch.utils.data import DataLoader

from helpers.prepared_sets import VIEW_SIZE, make_processor, make_set
from sind_hf import SindConfig, SindModel
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.prepared.folder import PreparedFolder, is_prepared, load_prepared, open_dataset
from sind_hf.data.prepared.images import PreparedImages
from sind_hf.data.prepared.prepare import prepare
from sind_hf.data.sampling import Draw
from sind_hf.data.views import ViewDataset
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.image_processing_sind import StripImage
from sind_hf.scoring.scorer import score_images
from sind_hf.training.trainer import SindTrainer
from sind_hf.training.training_args import SindTrainingArguments


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(image root, prepared folder, manifest); four shards."""
    root, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prepared") / "set"
    manifest = make_set(root)
    prepare(manifest, root, folder, view_size=VIEW_SIZE, shard_images=3)
    return root, folder, manifest


@pytest.fixture
def copy(prepared, tmp_path):
    """The same, to be damaged."""
    root, folder, manifest = prepared
    shutil.copytree(root, tmp_path / "source")
    prepare(manifest, tmp_path / "source", tmp_path / "set", view_size=VIEW_SIZE, shard_images=3)
    return tmp_path / "source", tmp_path / "set", manifest


def tiny_model(seed=0):
    torch.manual_seed(seed)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    return SindModel(SindConfig(vision_config=backbone, view_size=VIEW_SIZE)).eval()


def assert_same_samples(direct, prepared, keys):
    for key in keys:
        expected, found = direct[key], prepared[key]
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert value.dtype == found[name].dtype
            assert torch.equal(value, found[name]), (key, name)


@pytest.mark.parametrize("mode", ["center", "nine", "train"])
def test_views_are_those_of_the_source_bit_for_bit(prepared, mode):
    root, folder, manifest = prepared
    direct = ViewDataset(manifest.to_dataset(root), make_processor(), mode, seed=3)
    read = ViewDataset(load_prepared(folder), make_processor(), mode, seed=3)
    keys = range(len(manifest))
    if mode == "train":
        keys = [Draw(index, epoch, index) for index in keys for epoch in range(3)]
    assert len(read) == len(direct) == 10
    assert_same_samples(direct, read, keys)
    assert read.scene_names == direct.scene_names


def test_views_of_photographs_with_the_published_resize(shared, tmp_path):
    photos = sorted((shared / "data" / "photos").rglob("*.jpg"))[:200:50]
    root = shared / "data" / "photos"
    entries = [ManifestEntry(path.relative_to(root).as_posix(), float(i)) for i, path in enumerate(photos)]
    manifest = Manifest("photos", entries)
    for backend in ("torch", "pillow"):
        prepare(manifest, root, tmp_path / backend, resize_backend=backend)
        processor = make_processor(224, backend)
        direct = ViewDataset(manifest.to_dataset(root), processor, "train")
        read = ViewDataset(load_prepared(tmp_path / backend), processor, "train")
        assert_same_samples(direct, read, [Draw(index, 0, index) for index in range(len(photos))])


def test_images_lie_in_the_memory_map_and_strips_stay_strips(prepared):
    images = PreparedImages(load_prepared(prepared[1]))
    wide = images[0]
    assert wide.local_image.shape == (168, 224, 3)
    assert not wide.local_image.flags.owndata
    assert not wide.local_image.flags.writeable
    with open("/proc/self/maps") if os.path.exists("/proc/self/maps") else open(os.devnull) as maps:
        for line in maps:
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if start <= wide.local_image.ctypes.data < end:
                assert "shard-00000.arrow" in line
    assert [isinstance(image.local_image, StripImage) for image in images[1:5]] == [False, True, True, False]


def test_columns_are_those_of_the_manifest(prepared):
    root, folder, manifest = prepared
    expected, found = manifest.to_dataset(root), load_prepared(folder)
    assert found["score"][:] == expected["score"][:]
    assert found["scene"][:] == expected["scene"][:]
    assert found.features["scene"] == expected.features["scene"]
    assert found["image"][:] == [str(root / entry.image) for entry in manifest.entries]


def test_a_split_reads_its_part_in_its_own_order_with_its_own_labels(prepared):
    root, folder, manifest = prepared
    entries = [replace(manifest.entries[index], score=float(index), reference=f"r{index}") for index in (7, 2, 9)]
    fold = replace(manifest, entries=entries, score=ScoreInfo("DMOS", (0.0, 10.0), higher_is_better=False))
    read = load_prepared(folder, fold)
    assert read["score"][:] == [3.0, 8.0, 1.0]
    assert read["reference"][:] == ["r7", "r2", "r9"]
    direct = ViewDataset(fold.to_dataset(root), make_processor(), "center")
    assert_same_samples(direct, ViewDataset(read, make_processor(), "center"), range(3))


def test_selected_shuffled_and_joined_datasets_keep_their_images(prepared):
    root, folder, manifest = prepared
    whole = load_prepared(folder)
    direct = ViewDataset(manifest.to_dataset(root), make_processor(), "center")
    order = [4, 1, 1, 8]
    chosen = whole.select(order)
    night = whole.filter(lambda scene: scene == whole.features["scene"].str2int("night"), input_columns=["scene"])
    joined = ViewDataset(concatenate_datasets([chosen, night]), make_processor(), "center")
    for row, index in enumerate([*order, 1, 4, 7]):
        assert torch.equal(joined[row]["local_pixel_values"], direct[index]["local_pixel_values"])


def test_unknown_images_and_empty_selections_are_refused(prepared):
    _, folder, manifest = prepared
    other = replace(manifest, entries=[*manifest.entries[:2], ManifestEntry("images/new.png", 1.0, "day")])
    with pytest.raises(ValueError, match=r"lacks 1 image of generated, first images/new"):
        load_prepared(folder, other)
    with pytest.raises(ValueError, match="holds none of the images"):
        load_prepared(folder, replace(manifest, entries=[]))


@pytest.mark.parametrize(
    ("view_size", "backend", "message"),
    [(112, "torch", "size 112 and 'torch'"), (56, "pillow", "size 56 and 'pillow'")],
)
def test_a_processor_that_would_make_other_images_is_refused(prepared, view_size, backend, message):
    read = load_prepared(prepared[1])
    processor = make_processor(view_size, backend)
    with pytest.raises(ValueError, match=f"view_size=56, resize_backend='torch', but .* {message}"):
        ViewDataset(read, processor, "center")
    with pytest.raises(ValueError, match=message):
        next(score_images(tiny_model(), processor, PreparedImages(read)))


def test_a_processor_that_ignores_color_profiles_is_refused(prepared):
    processor = make_processor()
    processor.color_management = False
    with pytest.raises(ValueError, match="color_management is off in the image processor"):
        ViewDataset(load_prepared(prepared[1]), processor, "center")


def test_loader_processes_share_the_map_however_they_start(prepared):
    read = ViewDataset(load_prepared(prepared[1]), make_processor(), "center")
    pickled = pickle.dumps(read)  # what a spawned process receives
    size = sum(path.stat().st_size for path in prepared[1].glob("*.arrow"))
    assert len(pickled) < size / 20
    assert_same_samples(read, pickle.loads(pickled), range(10))
    forked = [sample for batch in DataLoader(read, batch_size=3, num_workers=2) for sample in batch["pixel_values"]]
    assert all(torch.equal(sample, read[index]["pixel_values"]) for index, sample in enumerate(forked))
    assert len(forked) == 10


def test_damaged_shards_are_named(copy):
    _, folder, _ = copy
    assert PreparedFolder(folder).damaged() == []
    shard = folder / "shard-00002.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert PreparedFolder(folder).damaged() == ["shard-00002.arrow"]
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"shard-00002.arrow: this shard was cut off"):
        load_prepared(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00002.arrow: this part of the prepared data is missing"):
        load_prepared(folder)


def test_damaged_records_and_unfinished_folders_are_named(copy, tmp_path):
    _, folder, _ = copy
    record = folder / "shard-00001.json"
    content = record.read_text()
    record.write_text(content[:50])
    with pytest.raises(ValueError, match=r"shard-00001.json: this record of a shard is damaged"):
        load_prepared(folder)
    record.write_text(content)
    (folder / "index.json").unlink()
    assert not is_prepared(folder)
    with pytest.raises(ValueError, match="preparation was not finished"):
        load_prepared(folder)
    with pytest.raises(ValueError, match="holds no prepared data"):
        load_prepared(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["index", "file", "sources"])
def test_a_prepared_folder_names_its_own_files_alone(copy, place):
    """Otherwise opening it would read, or wait for ever on, any file that it names."""
    _, folder, _ = copy
    index, record = folder / "index.json", folder / "shard-00000.json"
    values = json.loads((index if place == "index" else record).read_text())
    if place == "index":
        values["files"]["../source/x.json"] = "0"
    elif place == "file":
        values["file"] = "../set/shard-00000.arrow"
    else:
        values["sources"][0][:4] = ["../../../../../../dev/zero", 0, 1, "0"]
    (index if place == "index" else record).write_text(json.dumps(values))
    with pytest.raises(ValueError, match="index.json: cannot be read|this record of a shard is damaged"):
        load_prepared(folder)


def test_changed_sources_are_detected_and_copies_are_not(copy):
    root, folder, manifest = copy
    os.utime(root / manifest.entries[3].image, (1, 1))  # as in a copy: another time, the same content
    assert PreparedFolder(folder).stale() == []
    (root / manifest.entries[5].image).write_bytes((root / manifest.entries[6].image).read_bytes())
    (root / manifest.entries[8].image).unlink()
    changed = [manifest.entries[5].image, manifest.entries[8].image]
    assert PreparedFolder(folder).stale() == changed
    with pytest.raises(
        ValueError, match=rf"2 images under .* changed after the preparation, first {changed[0]}; run prepare again"
    ):
        load_prepared(folder)
    assert len(load_prepared(folder, check_sources=False)) == 10


def test_the_sources_need_not_be_there(copy):
    root, folder, manifest = copy
    expected = ViewDataset(manifest.to_dataset(root), make_processor(), "nine")[0]
    moved = folder.with_name("moved")
    folder.rename(moved)
    shutil.rmtree(root)
    assert torch.equal(
        ViewDataset(load_prepared(moved), make_processor(), "nine")[0]["pixel_values"], expected["pixel_values"]
    )


def test_scores_are_those_of_the_source(prepared):
    root, folder, manifest = prepared
    model, processor = tiny_model(), make_processor()
    paths = [str(root / entry.image) for entry in manifest.entries]
    direct = list(score_images(model, processor, paths, batch_size=4))
    read = list(score_images(model, processor, PreparedImages(load_prepared(folder)), batch_size=4, workers=1))
    assert read == direct
    assert all(result.score is not None for result in direct)


def test_evaluation_reads_prepared_data_in_the_place_of_the_images(copy):
    root, folder, manifest = copy
    (root / manifest.entries[0].image).write_bytes(b"no image")
    prepare(manifest, root, folder, view_size=VIEW_SIZE, shard_images=3)
    lower_is_better = replace(manifest, score=ScoreInfo("DMOS", None, higher_is_better=False))
    direct = evaluate_manifest(tiny_model(), make_processor(), lower_is_better, root, views="center", batch_size=1)
    read = evaluate_manifest(tiny_model(), make_processor(), lower_is_better, folder, views="center", batch_size=1)
    assert read.predictions == direct.predictions
    assert read.images == direct.images
    assert read.report == direct.report
    assert len(read.failures) == 1
    assert manifest.entries[0].image in read.failures[0]
    np.testing.assert_allclose(np.diff(read.targets), np.diff(direct.targets))
    # and as a dataset: what could not be prepared is left out
    assert len(open_dataset(lower_is_better, folder)) == 9
    assert "local_picture" not in open_dataset(manifest, root).column_names


def test_training_on_prepared_data_is_training_on_the_images(prepared, tmp_path):
    root, folder, manifest = prepared

    def train(dataset, name):
        arguments = SindTrainingArguments(
            str(tmp_path / name),
            max_steps=3,
            per_device_train_batch_size=6,
            scene_sampling=3,
            learning_rate=1e-2,
            warmup_epochs=0,
            eval_views="center",
            calibrate=False,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        model = tiny_model(seed=1)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        trainer = SindTrainer(
            model, arguments, train_dataset=dataset, eval_dataset=dataset, processing_class=make_processor()
        )
        trainer.train()
        after = model.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before)
        return after, trainer.evaluate()["eval_srcc"]

    weights, srcc = train(manifest.to_dataset(root), "direct")
    read_weights, read_srcc = train(load_prepared(folder), "prepared")
    assert all(torch.equal(weights[key], read_weights[key]) for key in weights)
    assert read_srcc == srcc
