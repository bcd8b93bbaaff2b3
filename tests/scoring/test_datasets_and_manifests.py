"""Sources beyond files and folders: manifests, prepared folders, datasets."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value

from sind_hf import Manifest, ManifestEntry, ScoreInfo, SindImageProcessor, SindModel
from sind_hf.data.importing.importer import import_manifest
from sind_hf.data.prepared.prepare import prepare
from sind_hf.scoring.dataset_rows import DatasetRows
from sind_hf.scoring.images import HubFile, LocatedImage, Unusable
from sind_hf.scoring.job import run_job
from sind_hf.scoring.scorer import ScoredImage, score_images
from sind_hf.scoring.sources import SourceOptions, open_sources

NAMES = [f"image{number}.png" for number in range(5)]


def names(path: Any, **options: Any) -> list[str]:
    return [image.name for image in open_sources([path], SourceOptions(**options))]


def score(model: SindModel, path: Any, options: dict[str, Any] | None = None, **others: Any) -> list[ScoredImage]:
    return list(run_job(model, SindImageProcessor(), [path], source_options=SourceOptions(**options or {}), **others))


def same_scores(found: list[ScoredImage], model: SindModel, files: list[str], tolerance: float = 0) -> None:
    expected = [row.score for row in score_images(model, SindImageProcessor(), files)]
    assert len(set(expected)) == len(expected)  # else images could change places
    assert [row.score for row in found] == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.fixture
def encoded(image_files: list[str]) -> Dataset:
    content = [{"bytes": Path(file).read_bytes(), "path": None} for file in image_files]
    features = Features({"id": Value("string"), "photo": Image()})
    return Dataset.from_dict({"id": [*"abcde"], "photo": content}, features)


# --- manifests and prepared folders ----------------------------------------------------------------------------------


@pytest.fixture
def manifest(image_files: list[str], tmp_path: Path) -> Path:
    """Backwards, with a missing and a damaged image."""
    (tmp_path / "bad.jpg").write_text("no image")
    images = [*reversed(NAMES), "gone.jpg", "bad.jpg"]
    entries = [ManifestEntry(name, float(number)) for number, name in enumerate(images)]
    return Manifest(dataset="study", entries=entries, score=ScoreInfo("MOS", (0, 9))).save(tmp_path / "m.json")


def test_a_manifest_is_its_files_in_its_order(
    tiny_model: SindModel, manifest: Path, image_files: list[str], tmp_path: Path
) -> None:
    found = score(tiny_model, manifest, {"image_root": tmp_path})
    assert [row.image for row in found] == [*reversed(image_files), f"{tmp_path}/gone.jpg", f"{tmp_path}/bad.jpg"]
    same_scores(found[:5], tiny_model, image_files[::-1])
    assert [row.error for row in found[4:6]] == [None, f"{tmp_path}/gone.jpg: no such file"]
    assert str(found[6].error).startswith(f"{tmp_path}/bad.jpg: not an image in a supported format")


def test_links_of_a_manifest_stay_in_the_image_root(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    shutil.copy(image_files[0], root / "sub" / "a.png")
    (root / "inside.png").symlink_to("sub/a.png")
    (root / "file.png").symlink_to(image_files[1])
    (root / "folder").symlink_to(tmp_path)
    named = ["inside.png", "file.png", f"folder/{NAMES[2]}", "sub/a.png"]
    path = tmp_path / "links.json"
    path.write_text(json.dumps({"files": [{"image": name} for name in named]}))
    found = score(tiny_model, path, {"image_root": root})
    assert [row.score is None for row in found] == [False, True, True, False]
    assert found[1].error == f"{root}/file.png: is a link that leads out of {root}; add --follow-links to read it"
    (tmp_path / "link").symlink_to(root)  # the image root itself may be one
    assert [row.score is None for row in score(tiny_model, path, {"image_root": tmp_path / "link"})][0] is False
    followed = score(tiny_model, path, {"image_root": root, "follow_links": True})
    same_scores(followed[:3], tiny_model, image_files[:3])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_prepared_folder_needs_no_originals(
    tiny_model: SindModel, manifest: Path, image_files: list[str], tmp_path: Path, workers: int
) -> None:
    prepare(Manifest.load(manifest), tmp_path, tmp_path / "prepared")
    expected = score(tiny_model, manifest, {"image_root": tmp_path})
    hidden = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    found = score(tiny_model, hidden / "prepared", workers=workers, quality_maps=hidden / "maps")
    assert [row.image for row in found] == [row.image for row in expected]
    assert [row.score for row in found] == [row.score for row in expected]  # to the last bit
    assert "gone.jpg" in str(found[5].error) and "bad.jpg" in str(found[6].error)
    assert len(list((hidden / "maps").iterdir())) == 5  # drawn over the stored images


def test_a_manifest_chooses_from_a_prepared_folder(
    tiny_model: SindModel, manifest: Path, image_files: list[str], tmp_path: Path
) -> None:
    whole = Manifest.load(manifest)
    prepare(whole, tmp_path, tmp_path / "prepared")
    Manifest("study", [whole.entries[5], whole.entries[3], whole.entries[0]], ScoreInfo("MOS", (0, 9))).save(
        tmp_path / "some.json"
    )
    found = score(tiny_model, tmp_path / "some.json", {"image_root": tmp_path / "prepared"})
    assert [Path(row.image).name for row in found] == ["gone.jpg", NAMES[1], NAMES[4]]
    same_scores(found[1:], tiny_model, [image_files[1], image_files[4]])


def test_prepared_images_of_another_size_are_refused(tiny_model: SindModel, manifest: Path, tmp_path: Path) -> None:
    prepare(Manifest.load(manifest), tmp_path, tmp_path / "prepared", view_size=112)
    with pytest.raises(ValueError, match="prepared: The images are prepared for view_size=112"):
        score(tiny_model, tmp_path / "prepared", output=tmp_path / "s.csv")
    assert not list(tmp_path.glob("s.csv*"))


# --- datasets --------------------------------------------------------------------------------------------------------


def test_every_form_of_a_dataset(
    tiny_model: SindModel, encoded: Dataset, image_files: list[str], tmp_path: Path
) -> None:
    encoded.to_parquet(tmp_path / "a[1].parquet")  # no pattern, though it looks like one
    encoded.save_to_disk(str(tmp_path / "saved"))
    DatasetDict({"test": encoded, "train": encoded.select([0])}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "repo" / "data").mkdir(parents=True)
    encoded.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    plain = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as other programs write images
    column = pa.array([{"bytes": Path(file).read_bytes(), "path": None} for file in image_files], plain)
    pq.write_table(pa.table({"photo": column}), tmp_path / "plain.parquet")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("a[1].parquet", {}, "a[1].parquet"),
        ("plain.parquet", {}, "plain.parquet"),
        ("saved", {}, "saved"),
        ("splits", {"split": "test"}, "splits/test"),
        ("repo", {}, "repo/test"),
    ]
    for path, options, title in cases:
        found = score(tiny_model, tmp_path / path, options, workers=1)
        assert [row.image for row in found] == [f"{tmp_path}/{title}#{number}" for number in range(5)], path
        same_scores(found, tiny_model, image_files)


@pytest.mark.parametrize("saved", [False, True])
def test_other_columns_are_not_read(
    encoded: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """A job over many columns, and its resumption, read as much as one over the images alone."""
    path = tmp_path / ("saved" if saved else "t.parquet")
    if saved:
        encoded.save_to_disk(path)
    else:
        encoded.to_parquet(path)
    rows = DatasetRows(str(path)).checked()
    read: list[set[str]] = []
    select = datasets.IterableDataset.select_columns
    monkeypatch.setattr(
        datasets.IterableDataset,
        "select_columns",
        lambda self, names: read.append(set(self.features)) or select(self, names),
    )
    assert len(list(rows)) == 5 and read == [{"photo"}]


def test_columns_of_paths_or_bytes_are_named(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    content = [Path(file).read_bytes() for file in image_files]
    table = Dataset.from_dict(
        {"where": NAMES, "raw": content}, Features({"where": Value("string"), "raw": Value("binary")})
    )
    table.to_parquet(tmp_path / "t.parquet")
    for column in ("where", "raw"):
        same_scores(score(tiny_model, tmp_path / "t.parquet", {"image_column": column}), tiny_model, image_files)
    with pytest.raises(ValueError, match="no column holds images.*Columns: where, raw"):
        names(tmp_path / "t.parquet")


def test_a_bad_row_is_named_and_stops_nothing(tiny_model: SindModel, image_files: list[str], tmp_path: Path) -> None:
    rows = [{"bytes": b"no image", "path": None}, {"bytes": Path(image_files[0]).read_bytes(), "path": "x"}, None]
    Dataset.from_dict({"image": rows}, Features({"image": Image()})).to_parquet(tmp_path / "t.parquet")
    bad, good, none = score(tiny_model, tmp_path / "t.parquet")
    assert str(bad.error).startswith(f"{tmp_path}/t.parquet#0: not an image in a supported format")
    assert none.error == f"{tmp_path}/t.parquet#2: holds no image"
    same_scores([good], tiny_model, image_files[:1])


def test_a_dataset_of_the_hub_is_streamed(
    tiny_model: SindModel, encoded: Dataset, image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of `load_dataset`; the Hub itself was never reached."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, subset: str | None, **options: Any) -> dict[str, Any]:
        asked.append((name, subset, options))
        return {"train": encoded.select([0]).to_iterable_dataset(), "test": encoded.to_iterable_dataset()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    address = "hf://datasets/user/photos@v2"
    found = score(tiny_model, address, {"split": "test", "subset": "large"})
    assert set(map(str, asked)) == {str(("user/photos", "large", {"revision": "v2", "streaming": True}))}
    assert [row.image for row in found] == [f"user/photos@v2/large/test#{number}" for number in range(5)]
    same_scores(found, tiny_model, image_files)
    with pytest.raises(ValueError, match="has several splits: choose one with --split: train, test"):
        names(address)
    with pytest.raises(ValueError, match="has no split 'val': choose one of train, test"):
        names(address, split="val")


def test_a_stream_is_read_no_further_than_a_few_batches(tiny_model: SindModel, image_files: list[str]) -> None:
    """Memory does not grow with the dataset: rows wait where they are until the model is ready for them."""
    from sind_hf.scoring.scorer import score_stream

    for workers in (0, 1):
        read = 0

        def stream() -> Iterator[LocatedImage]:
            nonlocal read
            for number in range(10_000):
                read += 1
                yield LocatedImage(f"#{number}", image_files[0])

        rows = score_stream(tiny_model, SindImageProcessor(), stream(), batch_size=2, workers=workers)
        image, row = next(rows)
        assert image.name == row.image == "#0" and read <= 2 * (1 + 3 * workers)
        rows.close()


def test_a_stream_that_breaks_keeps_what_was_scored(
    tiny_model: SindModel, encoded: Dataset, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def rows() -> Iterator[dict[str, Any]]:
        for number, file in enumerate(image_files):
            if broken and number == 3:
                raise ConnectionError("the network is\ngone")
            yield {"photo": {"bytes": Path(file).read_bytes(), "path": None}}

    stream = datasets.IterableDataset.from_generator(rows, features=Features({"photo": Image()}))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": stream})
    options: dict[str, Any] = {"output": tmp_path / "s.parquet", "batch_size": 1}
    with pytest.raises(ValueError, match=r"user/photos/train: cannot be read beyond row 2 \(the network is gone\)"):
        score(tiny_model, "hf://datasets/user/photos", {}, **options)
    broken = False
    found = score(tiny_model, "hf://datasets/user/photos", {}, resume=True, **options)
    assert [row.image for row in found] == [f"user/photos/train#{number}" for number in (3, 4)]
    kept = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["image"] for row in kept] == [f"user/photos/train#{number}" for number in range(5)]
    assert [row["score"] for row in kept[3:]] == [row.score for row in found]


# --- what a row may name ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that something tries to reach; none is reached."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def rows_of_paths(paths: list[str], file: Path, features: Features | None = None) -> Path:
    """Write rows as another program would: no bytes, only paths."""
    cells = pa.array([{"bytes": None, "path": path} for path in paths])
    table = pa.table({"image": cells.cast(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features.to_dict()}})})
    file.parent.mkdir(exist_ok=True)
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("features", [None, Features({"image": Image()})])
def test_a_row_reaches_no_address_and_no_file_of_others(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, no_network: list[Any], features: Features | None
) -> None:
    private = image_files[0]
    hostile = [
        "http://127.0.0.1:9/latest/meta-data",
        "HTTPS://127.0.0.1:9/a.png",
        "ftp://127.0.0.1/a.png",
        "simplecache::http://127.0.0.1:9/chained",
        "reference://a::http://127.0.0.1:9/refs.json",
        f"zip://a.png::file://{private}",
        f"file://{private}",
        f"local://{private}",
        "hf://datasets/other/set/a.png",
        private,
        "../image0.png",
        "below/../../image0.png",
        "link.png",
        "linked/image0.png",
    ]
    file = rows_of_paths(hostile, tmp_path / "set" / "t.parquet", features)
    (tmp_path / "set" / "link.png").symlink_to(private)
    (tmp_path / "set" / "linked").symlink_to(tmp_path)
    found = score(tiny_model, file)
    assert [(row.image, row.score) for row in found] == [(f"{file}#{n}", None) for n in range(len(hostile))]
    for row in found:
        assert str(row.error).startswith(f"{row.image}: names ")
    assert "--fetch-urls" in str(found[0].error) and "--image-root" in str(found[10].error)
    assert no_network == []


def test_a_row_names_files_of_its_dataset_and_of_the_image_root(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = rows_of_paths(["below/a.png", "./below//a.png"], tmp_path / "set" / "t.parquet")
    (tmp_path / "set" / "below").mkdir()
    shutil.copy(image_files[1], tmp_path / "set" / "below" / "a.png")
    monkeypatch.chdir(tmp_path.parent)  # paths start from the dataset, not from here
    same_scores(score(tiny_model, file)[:1], tiny_model, image_files[1:2])
    assert score(tiny_model, file)[1].score is not None
    file = rows_of_paths([NAMES[0], image_files[1], "/etc/hostname", "../x.png"], tmp_path / "set" / "t.parquet")
    first, second, *others = score(tiny_model, file, {"image_root": tmp_path})
    same_scores([first, second], tiny_model, image_files[:2])
    assert all("outside" in str(row.error) for row in others)


def test_addresses_in_rows_are_fetched_on_request(tmp_path: Path) -> None:
    file = rows_of_paths(["https://host/a.png", "reference::https://host/b.png"], tmp_path / "t.parquet")
    address, chained = open_sources([file], SourceOptions(fetch_urls=True))
    assert address.source == "https://host/a.png" and isinstance(chained.source, Unusable)
    with pytest.raises(ValueError, match="--fetch-urls belongs to datasets"):
        names("https://host/a.png", fetch_urls=True)


def test_features_that_open_what_a_row_names_are_not_decoded(
    tiny_model: SindModel, image_files: list[str], tmp_path: Path, no_network: list[Any]
) -> None:
    """A Parquet file says itself what its columns hold: also an image in the place of the path of an image."""
    nested = Features({"image": {"bytes": Value("binary"), "path": Image()}})
    paths = pa.array([{"bytes": None, "path": f"file://{image_files[0]}"}])
    cells = pa.StructArray.from_arrays([pa.nulls(1, pa.binary()), paths], ["bytes", "path"])
    file = tmp_path / "t.parquet"
    description = {"huggingface": json.dumps({"info": {"features": nested.to_dict()}})}
    pq.write_table(pa.table({"image": cells}).replace_schema_metadata(description), file)
    with pytest.raises(ValueError, match="no column holds images"):
        score(tiny_model, file)
    assert no_network == []


def test_a_row_of_a_hub_dataset_names_files_of_the_same_dataset() -> None:
    rows = DatasetRows("hf://datasets/user/photos@v2", column="image")

    def source(path: str) -> Any:
        return rows._locate("row", {"bytes": None, "path": path}).source

    assert source("train/a.png") == HubFile("datasets/user/photos@v2/train/a.png")
    assert source("hf://datasets/user/photos@0a1b/a b.png") == HubFile("datasets/user/photos@0a1b/a b.png")
    assert source("hf://datasets/user/photos/a.png") == HubFile("datasets/user/photos/a.png")
    archive = HubFile("datasets/user/photos@0a1b/all.zip", "train/a.png")
    assert source("zip://train/a.png::hf://datasets/user/photos@0a1b/all.zip") == archive
    for path in (
        "hf://datasets/user/photos2/a.png",
        "hf://datasets/user/other@v2/a.png",
        "hf://datasets/user/photos@v2/../../other/a.png",
        "hf://user/photos/a.png",
        "zip://a.png::hf://datasets/user/other/all.zip",
        "zip://a.png::https://host/all.zip",
        "zip://a.png::simplecache::hf://datasets/user/photos/all.zip",
        "https://host/a.png",
        "reference::hf://datasets/user/photos/a.json",
        "/etc/hostname",
        "../other/a.png",
        "file:///etc/hostname",
    ):
        assert isinstance(source(path), Unusable), path


def test_files_of_the_hub_are_read_where_they_are_decoded(
    image_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(image_files[0]).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/a.png", content)
        archive.writestr("bomb.png", bytes(2000))

    class Hub:
        def open(self, path: str, mode: str) -> io.BytesIO:
            file = io.BytesIO({"datasets/u/d/a.png": content, "datasets/u/d/a.zip": packed.getvalue()}[path])
            file.size = len(file.getvalue())  # type: ignore[attr-defined]
            return file

    class Files(io.BytesIO):
        size = 0

    monkeypatch.setattr(io, "BytesIO", Files)
    monkeypatch.setattr("huggingface_hub.HfFileSystem", Hub)
    expected = SindImageProcessor().make_views(image_files[0])
    for file in (HubFile("datasets/u/d/a.png"), HubFile("datasets/u/d/a.zip", "in/a.png")):
        assert (LocatedImage("shown", file).make_views(SindImageProcessor(), "center")[1] == expected[1]).all()
    with pytest.raises(ValueError, match="^shown: cannot be read"):
        LocatedImage("shown", HubFile("datasets/u/d/gone.png")).load()
    monkeypatch.setattr("sind_hf.scoring.images.LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="^shown: cannot be read .has 2,000 bytes"):
        LocatedImage("shown", HubFile("datasets/u/d/a.zip", "bomb.png")).load()


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/x.parquet", "reference://::http://127.0.0.1:9/x", "../*.parquet", "/x"]
)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_the_description_of_a_dataset_names_its_own_files_alone(
    encoded: Dataset, tmp_path: Path, no_network: list[Any], place: str, card: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    encoded.to_parquet(folder / "t.parquet")
    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": [place]}]}]
    line = "---\n" if card.endswith(".md") else ""
    (folder / card).write_text(f"{line}configs: {json.dumps(configs)}\n{line}")
    with pytest.raises(ValueError, match=f"{card} names .* not a file of this dataset"):
        names(folder)
    assert no_network == []
    configs[0]["data_files"] = "*.parquet"
    (folder / card).write_text(f"{line}configs: {json.dumps(configs)}\n{line}")
    assert len(names(folder)) == 5


@pytest.mark.parametrize("before", ["\n \n---\n", "\ufeff---\n", "---\r\n", "---\nlicense: mit\n---x: 1\n"])
def test_a_card_is_found_where_datasets_finds_it(
    encoded: Dataset, tmp_path: Path, no_network: list[Any], before: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    encoded.to_parquet(folder / "t.parquet")
    configs = [{"config_name": "default", "data_files": "http://127.0.0.1:9/t.parquet"}]
    (folder / "README.md").write_bytes(f"{before}configs: {json.dumps(configs)}\n---\n".encode())
    with pytest.raises(ValueError, match="README.md names .*, which is not a file of this dataset"):
        names(folder)
    assert no_network == []


def test_a_card_of_aliases_takes_no_time(encoded: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    encoded.to_parquet(folder / "t.parquet")
    lists = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10))
    for last in ("*a9", "&b [*b]"):
        card = f"---\na0: &a0 [x]\n{lists}configs:\n- config_name: default\n  data_files: {last}\n---\n"
        (folder / "README.md").write_text(card)
        with pytest.raises(ValueError, match="README.md: (its aliases stand for more than|cannot be read)"):
            names(folder)


@pytest.mark.parametrize("name", ["t.parquet", "README.md", ".huggingface.yaml"])
def test_a_dataset_of_pipes_is_refused_unopened(encoded: Dataset, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    encoded.to_parquet(folder / "s.parquet")
    os.mkfifo(folder / name)
    for source in {folder, folder / name} if name.endswith(".parquet") else {folder}:
        with pytest.raises(ValueError, match=f"{name} is not a regular file"):
            names(source)


def test_a_saved_dataset_of_pipes_is_refused_unopened(encoded: Dataset, tmp_path: Path) -> None:
    encoded.save_to_disk(str(tmp_path / "set"))
    (data,) = (tmp_path / "set").glob("*.arrow")
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(ValueError, match=f"{data.name} is not a regular file"):
        names(tmp_path / "set")
    with pytest.raises(ValueError, match=f"{data.name} is not a regular file"):
        import_manifest(tmp_path / "set")


def test_a_saved_dataset_names_its_own_files_alone(encoded: Dataset, tmp_path: Path) -> None:
    encoded.save_to_disk(str(tmp_path / "other"))
    DatasetDict({"train": encoded}).save_to_disk(str(tmp_path / "sets"))
    for splits in (["../other"], ["train", "x::http://127.0.0.1:9"], [7], "no list"):
        (tmp_path / "sets" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        with pytest.raises(ValueError, match="cannot be opened as a dataset"):
            names(tmp_path / "sets")
    state = json.loads((tmp_path / "other" / "state.json").read_text())
    state["_data_files"] = [{"filename": "../sets/train/data-00000-of-00001.arrow"}]
    (tmp_path / "other" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="not a file of this dataset"):
        names(tmp_path / "other")


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_without_their_source_are_refused(
    manifest: Path, encoded: Dataset, image_files: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="m.json: a manifest: name the folder .* by --image-root"):
        names(manifest)
    with pytest.raises(ValueError, match="--image-root belongs to manifests"):
        names(tmp_path, image_root=tmp_path)
    with pytest.raises(ValueError, match="--split belongs to datasets"):
        names(tmp_path, split="train")
    with pytest.raises(ValueError, match="--follow-links belongs to manifests"):
        names(tmp_path, follow_links=True)
    encoded.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="has no column 'image': choose one of id, photo"):
        names(tmp_path / "t.parquet", image_column="image")
    with pytest.raises(ValueError, match="--copy-good and --move-bad need image files"):
        names(tmp_path / "t.parquet", need_files=True)
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"broken\.parquet: cannot be opened as a dataset"):
        names(tmp_path / "broken.parquet")


def test_a_folder_of_images_stays_one_with_parquet_files_in_it(
    encoded: Dataset, image_files: list[str], tmp_path: Path
) -> None:
    encoded.to_parquet(tmp_path / "scores.parquet")
    assert names(tmp_path) == image_files
    for file in image_files:
        shutil.move(file, Path(file).with_suffix(".gone"))
    assert names(tmp_path) == [f"{tmp_path}/train#{number}" for number in range(5)]


def test_sources_go_to_other_processes(encoded: Dataset, image_files: list[str], tmp_path: Path) -> None:
    encoded.to_parquet(tmp_path / "t.parquet")
    sources = pickle.loads(pickle.dumps(open_sources([tmp_path / "t.parquet", *image_files[:2]])))
    assert [image.name for image in sources][4:] == [f"{tmp_path}/t.parquet#4", *image_files[:2]]


def test_a_manifest_needs_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"files": [{"image": "a.png"}, {"image": "b.png", "score": None}]}))
    assert names(path, image_root=tmp_path) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    with pytest.raises(ValueError, match="score is missing"):
        Manifest.load(path)
