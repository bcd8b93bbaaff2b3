"""Files that people write by hand or that a kill cut short: understood, or refused in one line that names them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import yaml
from fuzzing import damaged, fuzz, one_line, plain_values
from hypothesis import strategies as st

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo
from sind_hf.data.prepared.folder import PreparedFolder, load_prepared
from sind_hf.data.prepared.prepare import prepare
from sind_hf.data.splits.library import read_folds, write_folds
from sind_hf.data.splits.published_lists import liqe_splits, read_image_list
from sind_hf.data.splits.splits import k_folds
from sind_hf.experiments.config import GROUPS, RunConfig, load_config
from sind_hf.scoring.results import ScoreFile
from sind_hf.scoring.scorer import ScoredImage

ENTRIES = [ManifestEntry(f"photos/{number}.png", number / 3, ("day", "night")[number % 2]) for number in range(6)]
STUDY = Manifest("study", ENTRIES, ScoreInfo("MOS", (0.0, 5.0)))


# --- manifests -------------------------------------------------------------------------------------------------------

_ENTRY = st.fixed_dictionaries(
    {"image": st.text(min_size=1, max_size=8) | plain_values, "score": st.floats(-9, 9) | plain_values},
    optional={
        "scene": st.sampled_from(["day", "night"]) | plain_values,
        "domain_id": st.sampled_from([300, 301]) | plain_values,
        "reference": st.just("r.png") | plain_values,
        "distortion": st.just("jpeg") | plain_values,
    },
)
_MANIFEST = st.fixed_dictionaries(
    {"files": st.lists(_ENTRY, max_size=4) | plain_values},
    optional={
        "schema_version": st.just(1) | plain_values,
        "dataset": st.just("study") | plain_values,
        "score": st.fixed_dictionaries({}, optional={"name": plain_values, "range": plain_values}) | plain_values,
        "domain_name": st.dictionaries(st.sampled_from(["300", "301", "x"]), st.just("day") | plain_values),
        "reference_based": st.booleans() | plain_values,
        "source": plain_values,
    },
)


def test_manifests(tmp_path: Path) -> None:
    path, copy = tmp_path / "drawn.json", tmp_path / "copy.json"
    whole = STUDY.save(path).read_bytes()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = one_line(lambda: Manifest.load(path), "drawn.json", ManifestError)
        if found is not None:
            assert found.validate() == [] and len(found) > 0
            assert all(math.isfinite(entry.score) for entry in found.entries)
            found.save(copy)
            assert Manifest.load(copy) == found
            found.scene_classes(), found.oriented_scores(), found.oriented_range()

    encoded = (plain_values | _MANIFEST).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    fuzz(check, damaged(whole) | encoded | st.binary(max_size=60))


# --- configurations --------------------------------------------------------------------------------------------------

_KEYS = {group: sorted(name for name in options.__dataclass_fields__) for group, options in GROUPS.items()}
# Options that set up devices, trackers or debugging as soon as they are given.
_KEYS["training"] = [
    key for key in _KEYS["training"] if not key.startswith(("fsdp", "deepspeed", "accelerator", "debug"))
]


def _likely(kind: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(_KEYS[kind]) | st.text(max_size=8)


def test_configurations(tmp_path: Path) -> None:
    path, copy = tmp_path / "drawn.yaml", tmp_path / "copy.yaml"
    demo = (Path(__file__).parents[2] / "configs" / "demo.yaml").read_bytes()
    groups = {group: st.dictionaries(_likely(group), plain_values, max_size=3) | plain_values for group in GROUPS}
    documents = st.fixed_dictionaries({}, optional=groups) | plain_values
    written = documents.map(lambda value: yaml.dump(value).encode("utf-8", "surrogatepass"))
    override = st.tuples(st.sampled_from(sorted(GROUPS)).flatmap(_likely), st.text(max_size=8)).map("=".join)

    def check(data: bytes, overrides: list[str]) -> None:
        path.write_bytes(data)
        found = one_line(lambda: load_config(path, overrides), "")
        if found is not None:
            assert isinstance(found, RunConfig)
            found.save(copy)
            assert repr(load_config(copy).source) == repr(found.source)

    fuzz(
        check, damaged(demo) | written | st.binary(max_size=60), st.lists(override | st.text(max_size=12), max_size=2)
    )


# --- splits ----------------------------------------------------------------------------------------------------------


def test_lists_of_images(tmp_path: Path) -> None:
    wholes = {
        "drawn.json": json.dumps([{"image": entry.image} for entry in ENTRIES]).encode(),
        "drawn.csv": b"sessionId,imageName\ns1,1.jpg\ns2,2.jpg\n",
        "drawn.txt": b"photos/1.png\t3.5\nphotos/2.png\t1\n",
    }

    def check(name: str, data: st.DataObject) -> None:
        path = tmp_path / name
        encoded = plain_values.map(lambda value: json.dumps(value).encode())
        path.write_bytes(data.draw(damaged(wholes[name]) | encoded | st.binary(max_size=60)))
        found = one_line(lambda: read_image_list(path), name)
        assert found is None or all(isinstance(image, str) and "\\" not in image for image in found)

    fuzz(check, st.sampled_from(sorted(wholes)), st.data())


def test_folders_of_folds(tmp_path: Path) -> None:
    write_folds(k_folds(STUDY, 2), tmp_path / "folds", "k-folds")
    files = [path for path in sorted((tmp_path / "folds").rglob("*.json")) if path.stem == "train"]
    numbered = tmp_path / "liqe" / "1"
    numbered.mkdir(parents=True)
    lists = {side: numbered / f"study_{side}_clip.txt" for side in ("train", "val", "test")}
    for (side, path), entries in zip(lists.items(), (ENTRIES[:2], ENTRIES[2:4], ENTRIES[4:]), strict=True):
        path.write_text("".join(f"{entry.image}\t1.0\tjpeg\tday\tday\tday\n" for entry in entries))
        assert side in path.name
    assert len(read_folds(tmp_path / "folds", "random-split", "study")) == 2 and len(
        liqe_splits(STUDY, tmp_path / "liqe")
    )

    def check(data: st.DataObject) -> None:
        for path, read in (
            (files[0], lambda: read_folds(tmp_path / "folds", "random-split", "study")),
            (lists["train"], lambda: liqe_splits(STUDY, tmp_path / "liqe")),
        ):
            whole = path.read_bytes()
            try:
                path.write_bytes(data.draw(damaged(whole)))
                one_line(read, "")
            finally:
                path.write_bytes(whole)

    fuzz(check, st.data())


# --- what runs leave behind ------------------------------------------------------------------------------------------


def test_scores_of_an_interrupted_job(tmp_path: Path) -> None:
    """Whatever became of the part, resuming ends with one row for every image."""
    images, settings = [entry.image for entry in ENTRIES], {"model": "m", "views": "center"}
    path, part = tmp_path / "drawn.jsonl", tmp_path / "drawn.jsonl.part"
    rows = [json.dumps({"image": image, "score": 1.5, "error": None}) for image in images[:4]]
    whole = "\n".join([json.dumps(settings), *rows, ""]).encode()

    def check(data: bytes) -> None:
        part.write_bytes(data)
        file = ScoreFile(path, settings)
        done = one_line(lambda: file.collect(resume=True), "drawn.jsonl.part")
        if done is None:
            return
        with file.open_part() as rows:
            for image in images:
                if image not in done:
                    rows.write(ScoredImage(image, 2.5))
        file.finish(images)
        assert [json.loads(line)["image"] for line in path.read_text().splitlines()] == images

    fuzz(check, damaged(whole) | st.binary(max_size=60))


def test_prepared_folders(tmp_path: Path, draw: Any) -> None:
    for entry in ENTRIES:
        (tmp_path / "photos").mkdir(exist_ok=True)
        draw(40, 30).save(tmp_path / entry.image)
    folder = tmp_path / "set"
    prepare(STUDY, tmp_path, folder, view_size=56, shard_images=6)
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".json")
    assert len(names) == 3  # index, manifest, the record of the shard

    def check(name: str, data: st.DataObject) -> None:
        whole = (folder / name).read_bytes()
        encoded = plain_values.map(lambda value: json.dumps(value).encode())
        try:
            (folder / name).write_bytes(data.draw(damaged(whole) | encoded))
            if one_line(lambda: PreparedFolder(folder), "set") is not None:
                one_line(lambda: load_prepared(folder), "")
        finally:
            (folder / name).write_bytes(whole)

    fuzz(check, st.sampled_from(names), st.data())
    assert len(load_prepared(folder)) == 6
    shutil.rmtree(folder)
