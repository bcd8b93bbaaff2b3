"""Full-size comparison with the published manifests: label files made of their values are read back, entry by entry.

What cannot be compared: scenes that CLIP chose are given to the reader as scene labels (SPAQ, KonIQ-10k, LIVE in the
Wild, BID); reference images, which the published files do not carry; and the order of LIVE, where the published file
goes through the reference images in the order of somebody's disk, ours through the arrays of the database.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from helpers import raw_trees
from sind_hf.data.manifests import catalog
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.readers import BuildResult, build


class Published:
    """A manifest of the published implementation, as plain JSON: what our own loader does to it is not at issue."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.files: list[dict[str, Any]] = content["files"]
        self.domain_names = {int(key): name for key, name in content.get("domain_name", {}).items()}

    def rows(self, *keys: str) -> list[tuple[Any, ...]]:
        return [tuple(entry[key] for key in keys) for entry in self.files]

    @property
    def scene_labels(self) -> dict[str, str]:
        return {entry["image"]: entry["scene"] for entry in self.files}


@pytest.fixture
def published(shared: Path, request: pytest.FixtureRequest) -> Published:
    path = shared / "reference/data_json" / request.param
    if not path.is_file():
        pytest.skip(f"needs the published manifest {path}")
    return Published(path)


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("published", [f"all/{name}_all.json"], indirect=True, ids=[name])


def check(result: BuildResult, published: Published, *keys: str) -> None:
    """Same images in the same order, and the same values for all the keys."""
    assert result.complete
    assert result.manifest.validate(result.image_root) == []
    ours = [tuple(getattr(entry, key) for key in keys) for entry in result.manifest.entries]
    theirs = published.rows(*keys)
    differences = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert differences == []
    facts = catalog.get(result.manifest.dataset)
    assert len(ours) == facts.images
    low, high = facts.score_range or (float("-inf"), float("inf"))
    assert all(low <= entry.score <= high for entry in result.manifest.entries)
    assert not [note for note in result.notes if "complete set has" in note]


@of("spaq")
def test_spaq(published: Published, tmp_path: Path) -> None:
    draw = random.Random(0)
    names = [image.rsplit("/", 1)[-1] for (image,) in published.rows("image")]
    # The published scene among up to two others: which other scenes an image has, the manifest does not say.
    images = [
        (name, score, {scene, *draw.sample(raw_trees.SPAQ_SCENES, draw.randrange(3))})
        for name, (score, scene) in zip(names, published.rows("score", "scene"), strict=True)
    ]
    raw_trees.spaq(tmp_path, images)
    result = build("spaq", tmp_path, scene_labels=published.scene_labels)
    check(result, published, "image", "score", "scene", "domain_id")
    assert result.manifest.domain_names == published.domain_names


@of("koniq10k")
def test_koniq10k(published: Published, tmp_path: Path) -> None:
    raw_trees.koniq10k(
        tmp_path, [(image.rsplit("/", 1)[-1], score) for image, score in published.rows("image", "score")]
    )
    check(build("koniq10k", tmp_path), published, "image", "score")
    result = build("koniq10k", tmp_path, scene_labels=published.scene_labels)
    check(result, published, "image", "score", "scene", "domain_id")
    assert result.manifest.domain_names == published.domain_names


@of("livec")
def test_livec(published: Published, tmp_path: Path, shared: Path) -> None:
    images = [(image.rsplit("/", 1)[-1], score) for image, score in published.rows("image", "score")]
    raw_trees.livec(tmp_path, images, folder="LIVEChallenge", as_archived=False)
    result = build("livec", tmp_path, scene_labels=published.scene_labels)
    check(result, published, "image", "score", "scene", "domain_id")
    assert result.manifest.domain_names == published.domain_names
    # Without scenes: the published test file of the cross-set protocol.
    unlabelled = Published(shared / "reference/data_json/for_cross_set/test/livec.json")
    check(build("livec", tmp_path), unlabelled, "image", "score", "domain_id")


@of("bid")
def test_bid(published: Published, tmp_path: Path, shared: Path) -> None:
    numbers = [int(re.search(r"(\d{4})\.JPG$", image)[1]) for (image,) in published.rows("image")]
    raw_trees.bid(tmp_path, list(zip(numbers, [score for (score,) in published.rows("score")], strict=True)))
    result = build("bid", tmp_path, scene_labels=published.scene_labels)
    check(result, published, "image", "score", "scene", "domain_id")
    assert result.manifest.domain_names == published.domain_names
    unlabelled = Published(shared / "reference/data_json/for_cross_set/test/bid.json")
    check(build("bid", tmp_path), unlabelled, "image", "score", "domain_id")


@pytest.mark.parametrize("published", ["for_cross_set/test/cid2013.json"], indirect=True, ids=["cid2013"])
def test_cid2013(published: Published, tmp_path: Path) -> None:
    images = [(Path(image).stem, score) for image, score in published.rows("image", "score")]
    raw_trees.cid2013(tmp_path, images, sorted_in_sets=False)
    check(build("cid2013", tmp_path), published, "image", "score", "domain_id")


@of("live")
def test_live(published: Published, tmp_path: Path) -> None:
    kinds = list(raw_trees.LIVE_COUNTS)
    paths = [f"LIVE/{kind}/img{index}.bmp" for kind in kinds for index in range(1, raw_trees.LIVE_COUNTS[kind] + 1)]
    score_of = dict(published.rows("image", "score"))
    references = references_of(published)
    scores = [score_of[path] for path in paths]
    raw_trees.live(
        tmp_path, scores, [score == 0 for score in scores], [references[path] for path in paths], folder="LIVE"
    )
    result = build("live", tmp_path)
    assert [entry.image for entry in result.manifest.entries] == paths  # the order of the arrays
    # Stable sorting by reference gives the published order.
    result.manifest.entries.sort(key=lambda entry: int(entry.reference.removesuffix(".bmp")))
    for entry, theirs in zip(result.manifest.entries, published.files, strict=True):
        assert entry.distortion == entry.scene == theirs["dist_type"]
    check(result, published, "image", "score", "domain_id")
    assert result.manifest.domain_names == published.domain_names
    assert "203 of the 982 entries are pristine images" in result.notes
    assert (min(scores), max(scores)) == result.manifest.score.range


def references_of(published: Published) -> dict[str, str]:
    """A stand-in name for the reference of every image: within one, the published order runs through the arrays."""
    kinds = list(raw_trees.LIVE_COUNTS)
    names: dict[str, str] = {}
    last, group = (-1, -1), -1
    for (image,) in published.rows("image"):
        _, kind, name = image.split("/")
        position = (kinds.index(kind), int(name[3:-4]))
        if position < last or group < 0:
            group += 1
        last = position
        names[image] = f"{group}.bmp"
    assert group == 28  # 29 reference images
    return names


@of("eva")
def test_eva(published: Published, tmp_path: Path) -> None:
    images = [
        (Path(image).stem, Path(image).parent.name, raw_trees.votes_with_mean(score))
        for image, score in published.rows("image", "score")
    ]
    images.insert(100, ("no-votes", "3", []))
    raw_trees.eva(tmp_path, images)
    result = build("eva", tmp_path)
    check(result, published, "image", "score", "scene", "domain_id")
    assert result.manifest.domain_names == published.domain_names


@of("koniq10k")
def test_a_built_manifest_saves_and_loads(published: Published, tmp_path: Path) -> None:
    raw_trees.koniq10k(
        tmp_path, [(image.rsplit("/", 1)[-1], score) for image, score in published.rows("image", "score")]
    )
    manifest = build("koniq10k", tmp_path, scene_labels=published.scene_labels).manifest
    assert manifest.validate(tmp_path) == []
    manifest.save(tmp_path / "all.json")
    assert Manifest.load(tmp_path / "all.json") == manifest
