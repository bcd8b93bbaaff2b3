from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from helpers.tiny_clip import save_tiny_clip
from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.manifests.catalog import SCENES
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.readers.build import seeded_choice
from sind_hf.data.scenes.embeddings import ClipEncoder, SindEncoder
from sind_hf.data.scenes.labeling import (
    SceneLabel,
    SceneLabels,
    apply,
    default_scenes,
    label_scenes,
    most_similar,
    pseudo_scenes,
    scene_picker,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(save_tiny_clip(tmp_path_factory.mktemp("clip")))


KINDS = [0, 1, 2] * 3 + [0, 1] * 2 + [0, 0]
COLORS = [(230, 40, 30), (30, 220, 60), (40, 50, 240)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Fifteen images of three colours: seven, five and three of them."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    entries = []
    for index, kind in enumerate(KINDS):
        pixels = np.clip(np.asarray(COLORS[kind]) + rng.normal(0, 12, (40, 50, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index:02}.png")
        entries.append(ManifestEntry(f"{index:02}.png", float(index)))
    return root, Manifest("study", entries)


@torch.no_grad()
def clip_probabilities(clip, root, manifest, scenes, prompt="a photo of {scene}"):
    """What transformers' own zero-shot recipe gives, at the published scale."""
    model = CLIPModel.from_pretrained(clip).eval()
    model.logit_scale.fill_(np.log(100))
    images = [Image.open(root / entry.image) for entry in manifest.entries]
    texts = [prompt.format(scene=scene) for scene in scenes]
    inputs = CLIPProcessor.from_pretrained(clip)(text=texts, images=images, return_tensors="pt", padding=True)
    return model(**inputs).logits_per_image.softmax(-1).numpy()


def test_labels_are_those_of_the_zero_shot_recipe(clip, source):
    root, manifest = source
    progress = []
    labels = label_scenes(manifest, root, clip, batch_size=4, progress=lambda *done: progress.append(done))
    expected = clip_probabilities(clip, root, manifest, SCENES)
    found = [labels.labels[entry.image] for entry in manifest.entries]
    assert [label.scene for label in found] == [SCENES[index] for index in expected.argmax(1)]
    assert len({label.scene for label in found}) == 3
    np.testing.assert_allclose([label.confidence for label in found], expected.max(1), atol=2e-3)
    assert labels.failures == []
    assert sum(labels.counts().values()) == 15
    assert list(labels.counts()) == list(SCENES)
    assert progress == [(0, 15), (4, 15), (8, 15), (12, 15), (15, 15)]


def test_own_scenes_and_prompt(clip, source):
    root, manifest = source
    scenes = ["red things", "green things", "blue things", "night"]
    prompt = "{scene}, photographed"
    labels = label_scenes(manifest, root, ClipEncoder(clip, "cpu"), scenes=scenes, prompt=prompt, workers=1)
    expected = clip_probabilities(clip, root, manifest, scenes, prompt).argmax(1)
    assert [labels.labels[entry.image].scene for entry in manifest.entries] == [scenes[index] for index in expected]
    assert "photographed" in labels.source


def test_scenes_of_the_catalog():
    assert default_scenes("koniq10k") == SCENES[:8]
    assert default_scenes("livec") == SCENES
    assert default_scenes("cid2013") == default_scenes("an own study") == SCENES  # it has no scenes of its own


def test_most_similar_takes_the_first_of_equals_in_the_order_of_scenes():
    assert most_similar([1.0, 7.0, 7.0], ["a", "b", "c"], ["c", "b"]) == SceneLabel("b", 0.5)


def test_the_seeded_choice_depends_on_the_seed_and_the_file_name():
    scenes = ("Human", "Plant", "Night scene")
    images = [f"{number:02d}.png" for number in range(15)]
    chosen = [seeded_choice(image, scenes, seed=1) for image in images]
    assert chosen == [seeded_choice(f"folder/{image.upper()}", scenes, seed=1) for image in images]
    assert set(chosen) == set(scenes)
    assert [seeded_choice(image, scenes, seed=2) for image in images] != chosen


def test_images_that_cannot_be_read_are_named_and_left_out(clip, source, tmp_path):
    root, manifest = source
    (tmp_path / "00.png").write_bytes((root / "00.png").read_bytes())
    (tmp_path / "01.png").write_text("no image")
    part = replace(manifest, entries=manifest.entries[:3])
    labels = label_scenes(part, tmp_path, clip, cache=tmp_path / "cache.jsonl", batch_size=1)
    assert list(labels.labels) == ["00.png"]
    (damaged, reason), missing = labels.failures
    assert damaged == "01.png" and reason.startswith("not an image in a supported format")
    assert missing == ("02.png", "no such file")
    assert [entry.image for entry in apply(part, labels).entries] == ["00.png"]
    # they are tried again
    (tmp_path / "02.png").write_bytes((root / "02.png").read_bytes())
    assert list(label_scenes(part, tmp_path, clip, cache=tmp_path / "cache.jsonl").labels) == ["00.png", "02.png"]


def test_an_interrupted_run_goes_on_from_the_cache(clip, source, tmp_path, monkeypatch):
    root, manifest = source
    cache = tmp_path / "folder" / "cache.jsonl"
    fresh = label_scenes(manifest, root, clip)

    class Interrupted(Exception):
        pass

    def stop(done, total):
        if done == 8:
            raise Interrupted

    with pytest.raises(Interrupted):
        label_scenes(manifest, root, clip, batch_size=4, cache=cache, progress=stop)
    lines = cache.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 8
    cache.write_bytes(b"".join(lines)[:-20])  # the last line was cut off by a kill
    embedded = []
    embed = ClipEncoder.embed
    monkeypatch.setattr(ClipEncoder, "embed", lambda self, batch: embedded.append(len(batch)) or embed(self, batch))
    progress = []
    resumed = label_scenes(manifest, root, clip, cache=cache, progress=lambda *done: progress.append(done))
    assert embedded == [8]
    assert progress == [(7, 15), (15, 15)]
    assert {name: label.scene for name, label in resumed.labels.items()} == {
        name: label.scene for name, label in fresh.labels.items()
    }
    for name, label in resumed.labels.items():  # other batches may round the last digit otherwise
        assert label.confidence == pytest.approx(fresh.labels[name].confidence, abs=2e-6)
    assert len(cache.read_bytes().splitlines()) == 1 + 15
    # complete: the model is asked nothing
    embedded.clear()
    assert label_scenes(manifest, root, clip, cache=cache).labels == resumed.labels
    assert embedded == []


def test_a_cache_of_other_settings_is_refused(clip, source, tmp_path):
    root, manifest = source
    cache = tmp_path / "cache.jsonl"
    label_scenes(manifest, root, clip, cache=cache)
    kept = cache.read_bytes()
    with pytest.raises(ValueError, match=r"cache.jsonl: was made with prompt 'a photo of .*, not 'a \{scene\}'"):
        label_scenes(manifest, root, clip, cache=cache, prompt="a {scene}")
    with pytest.raises(ValueError, match="was made with scenes"):
        label_scenes(manifest, root, clip, cache=cache, scenes=["a", "b"])
    other = str(save_tiny_clip(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match="was made with clip"):
        label_scenes(manifest, root, other, cache=cache)
    assert cache.read_bytes() == kept


@pytest.mark.parametrize(
    "content", [b"image,score\na.png,3\n", b"notes without an end", b'{"image": "a"}\n', b"\xff\xfe\n"]
)
def test_a_file_that_is_not_a_cache_is_left_alone(clip, source, tmp_path, content):
    root, manifest = source
    cache = tmp_path / "scores.csv"
    cache.write_bytes(content)
    with pytest.raises(ValueError, match="is not a cache of scene similarities"):
        label_scenes(manifest, root, clip, cache=cache)
    assert cache.read_bytes() == content


def test_a_cache_stopped_in_its_first_line_or_damaged_inside(clip, source, tmp_path):
    root, manifest = source
    cache = tmp_path / "cache.jsonl"
    expected = label_scenes(manifest, root, clip, cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:30])
    assert label_scenes(manifest, root, clip, cache=cache) == expected
    assert cache.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    cache.write_bytes(b"".join([*lines[:4], lines[4][:9] + b"\n", *lines[5:]]))
    with pytest.raises(ValueError, match="cache.jsonl, line 5: damaged"):
        label_scenes(manifest, root, clip, cache=cache)


def test_labels_become_scenes_and_domain_ids(source):
    manifest = replace(source[1], dataset="livec", entries=source[1].entries[:3], source="table.csv")
    chosen = dict(zip(["00.png", "01.png", "02.png"], ["Night scene", "Animal", "Others"], strict=True))
    labels = SceneLabels(SCENES, {image: SceneLabel(scene, 0.5) for image, scene in chosen.items()}, [], "scenes: me")
    labeled = apply(manifest, labels)
    assert [(entry.scene, entry.domain_id) for entry in labeled.entries] == [
        ("Night scene", 205),
        ("Animal", 200),
        ("Others", 208),
    ]
    assert labeled.domain_names == {200 + index: scene for index, scene in enumerate(SCENES)}
    assert labeled.source == "table.csv; scenes: me"
    assert labeled.validate() == []
    assert apply(replace(manifest, dataset="own"), labels).entries[1].domain_id == 0
    with pytest.raises(ValueError, match=r"no scene label for 2 images, first 03.png"):
        apply(replace(manifest, entries=source[1].entries[:5]), labels)


def test_a_picker_for_readers(clip, source):
    root, manifest = source
    paths = [root / entry.image for entry in manifest.entries]
    candidates = [("Animal", "Human"), ("Plant", "Human", "Others")] * 7 + [("Animal", "Plant")]
    picked = scene_picker(clip)(paths, candidates)
    probabilities = clip_probabilities(clip, root, manifest, SCENES)
    expected = [
        max(names, key=lambda name, row=row: row[SCENES.index(name)])
        for names, row in zip(candidates, probabilities, strict=True)
    ]
    assert picked == expected
    with pytest.raises(ValueError, match=r"nothing.png: no such file; leave it out"):
        scene_picker(clip)([root / "nothing.png"], [("Animal", "Human")])


@pytest.mark.parametrize("kind", ["clip", "sind"])
def test_pseudo_scenes_find_the_kinds_of_images(clip, source, kind):
    root, manifest = source
    if kind == "clip":
        encoder = clip
    else:
        torch.manual_seed(0)
        backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        model = SindModel(SindConfig(vision_config=backbone, view_size=56))
        encoder = SindEncoder(model, SindImageProcessor(size={"height": 56, "width": 56}))
    labels = pseudo_scenes(manifest, root, encoder, 3, seed=0, batch_size=4)
    assert labels.scenes == ("cluster 1", "cluster 2", "cluster 3")
    assert labels.counts() == {"cluster 1": 7, "cluster 2": 5, "cluster 3": 3}
    expected = {entry.image: f"cluster {kind + 1}" for entry, kind in zip(manifest.entries, KINDS, strict=True)}
    assert {image: label.scene for image, label in labels.labels.items()} == expected
    assert pseudo_scenes(manifest, root, encoder, 3, seed=0, batch_size=15) == labels
    assert apply(manifest, labels).scene_classes()[0] == ["cluster 1", "cluster 2", "cluster 3"]


def test_pseudo_scenes_refuse_what_cannot_be_clustered(clip, source, tmp_path, monkeypatch):
    root, manifest = source
    with pytest.raises(ValueError, match="clusters is 1: give at least 2"):
        pseudo_scenes(manifest, root, clip, 1)
    with pytest.raises(ValueError, match=r"3 clusters of 0 readable images, 15 are not .* 00.png: no such"):
        pseudo_scenes(manifest, tmp_path, clip, 3)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ValueError, match=r'pip install "sind-hf\[data\]"'):
        pseudo_scenes(manifest, root, clip, 3)


def test_wrong_use(clip, source, tmp_path):
    root, manifest = source
    for prompt in ("a photo", "a photo of {scen}", "{scene} {", "{}"):
        with pytest.raises(ValueError, match=r"must hold \{scene\}"):
            label_scenes(manifest, root, clip, prompt=prompt)
    with pytest.raises(ValueError, match="distinct names"):
        label_scenes(manifest, root, clip, scenes=["a", "a"])
    with pytest.raises(ValueError, match="the image root is not a folder"):
        label_scenes(manifest, tmp_path / "nowhere", clip)
    with pytest.raises(ValueError, match="nowhere: cannot load this CLIP model"):
        label_scenes(manifest, root, str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match="it is a model of kind 'resnet', not 'clip'"):
        label_scenes(manifest, root, str(tmp_path))
