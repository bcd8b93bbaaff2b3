"""Sources beyond files and folders: manifests, prepared folders, datasets."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value

from sind_hf import Manifest, ManifestEntry, ScoreInfo, SindImageProcessor, SindModel
from sind_hf.data.preparation import prepare
from sind_hf.scoring.job import run_job
from sind_hf.scoring.pictures import Picture, RemoteFile
from sind_hf.scoring.scorer import ScoredImage, score_images
from sind_hf.scoring.sources import SourceOptions, open_sources

NAMES = [f"picture{number}.png" for number in range(5)]


def names(path: Any, **options: Any) -> list[str]:
    return [picture.name for picture in open_sources([path], SourceOptions(**options))]


def score(model: SindModel, path: Any, options: dict[str, Any] | None = None, **others: Any) -> list[ScoredImage]:
    return list(run_job(model, SindImageProcessor(), [path], source_options=SourceOptions(**options or {}), **others))


def same_scores(found: list[ScoredImage], model: SindModel, files: list[str], tolerance: float = 0) -> None:
    expected = [row.score for row in score_images(model, SindImageProcessor(), files)]
    assert len(set(expected)) == len(expected)  # else pictures could change places
    assert [row.score for row in found] == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.fixture
def encoded(picture_files: list[str]) -> Dataset:
    return Dataset.from_dict({"id": [*"abcde"], "photo": picture_files}).cast_column("photo", Image())


# --- manifests and prepared folders ----------------------------------------------------------------------------------


@pytest.fixture
def manifest(picture_files: list[str], tmp_path: Path) -> Path:
    """Backwards, with a missing and a damaged picture."""
    (tmp_path / "bad.jpg").write_text("no picture")
    images = [*reversed(NAMES), "gone.jpg", "bad.jpg"]
    entries = [ManifestEntry(name, float(number)) for number, name in enumerate(images)]
    return Manifest(dataset="study", entries=entries, score=ScoreInfo("MOS", (0, 9))).save(tmp_path / "m.json")


def test_a_manifest_is_its_files_in_its_order(
    tiny_model: SindModel, manifest: Path, picture_files: list[str], tmp_path: Path
) -> None:
    found = score(tiny_model, manifest, {"image_root": tmp_path})
    assert [row.image for row in found] == [*reversed(picture_files), f"{tmp_path}/gone.jpg", f"{tmp_path}/bad.jpg"]
    same_scores(found[:5], tiny_model, picture_files[::-1])
    assert [row.error for row in found[4:]] == [
        None,
        f"{tmp_path}/gone.jpg: no such file",
        f"{tmp_path}/bad.jpg: not a picture in a known format",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_prepared_folder_needs_no_originals(
    tiny_model: SindModel, manifest: Path, picture_files: list[str], tmp_path: Path, workers: int
) -> None:
    prepare(Manifest.load(manifest), tmp_path, tmp_path / "prepared")
    expected = score(tiny_model, manifest, {"image_root": tmp_path})
    hidden = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    found = score(tiny_model, hidden / "prepared", workers=workers, quality_maps=hidden / "maps")
    assert [row.image for row in found] == [row.image for row in expected]
    assert [row.score for row in found] == [row.score for row in expected]  # to the last bit
    assert "gone.jpg" in str(found[5].error) and "bad.jpg" in str(found[6].error)
    assert len(list((hidden / "maps").iterdir())) == 5  # drawn over the stored pictures


def test_a_manifest_chooses_from_a_prepared_folder(
    tiny_model: SindModel, manifest: Path, picture_files: list[str], tmp_path: Path
) -> None:
    whole = Manifest.load(manifest)
    prepare(whole, tmp_path, tmp_path / "prepared")
    Manifest("study", [whole.entries[5], whole.entries[3], whole.entries[0]], ScoreInfo("MOS", (0, 9))).save(
        tmp_path / "some.json"
    )
    found = score(tiny_model, tmp_path / "some.json", {"image_root": tmp_path / "prepared"})
    assert [Path(row.image).name for row in found] == ["gone.jpg", NAMES[1], NAMES[4]]
    same_scores(found[1:], tiny_model, [picture_files[1], picture_files[4]])


def test_prepared_pictures_of_another_size_are_refused(tiny_model: SindModel, manifest: Path, tmp_path: Path) -> None:
    prepare(Manifest.load(manifest), tmp_path, tmp_path / "prepared", view_size=112)
    with pytest.raises(ValueError, match="prepared: The pictures are prepared for view_size=112"):
        score(tiny_model, tmp_path / "prepared", output=tmp_path / "s.csv")
    assert not list(tmp_path.glob("s.csv*"))


# --- datasets --------------------------------------------------------------------------------------------------------


def test_every_form_of_a_dataset(
    tiny_model: SindModel, encoded: Dataset, picture_files: list[str], tmp_path: Path
) -> None:
    encoded.to_parquet(tmp_path / "a[1].parquet")  # no pattern, though it looks like one
    encoded.save_to_disk(str(tmp_path / "saved"))
    DatasetDict({"test": encoded, "train": encoded.select([0])}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "repo" / "data").mkdir(parents=True)
    encoded.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    plain = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as other programs write pictures
    column = pa.array([{"bytes": Path(file).read_bytes(), "path": None} for file in picture_files], plain)
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
        same_scores(found, tiny_model, picture_files)


def test_columns_of_paths_or_bytes_are_named(tiny_model: SindModel, picture_files: list[str], tmp_path: Path) -> None:
    content = [Path(file).read_bytes() for file in picture_files]
    table = Dataset.from_dict(
        {"where": picture_files, "raw": content}, Features({"where": Value("string"), "raw": Value("binary")})
    )
    table.to_parquet(tmp_path / "t.parquet")
    for column in ("where", "raw"):
        same_scores(score(tiny_model, tmp_path / "t.parquet", {"image_column": column}), tiny_model, picture_files)
    with pytest.raises(ValueError, match="no column holds pictures.*Columns: where, raw"):
        names(tmp_path / "t.parquet")


def test_a_bad_row_is_named_and_stops_nothing(tiny_model: SindModel, picture_files: list[str], tmp_path: Path) -> None:
    rows = [{"bytes": b"no picture", "path": None}, {"bytes": Path(picture_files[0]).read_bytes(), "path": "x"}, None]
    Dataset.from_dict({"image": rows}, Features({"image": Image()})).to_parquet(tmp_path / "t.parquet")
    bad, good, none = score(tiny_model, tmp_path / "t.parquet")
    assert bad.error == f"{tmp_path}/t.parquet#0: not a picture in a known format"
    assert none.error == f"{tmp_path}/t.parquet#2: holds no picture"
    same_scores([good], tiny_model, picture_files[:1])


def test_a_dataset_of_the_hub_is_streamed(
    tiny_model: SindModel, encoded: Dataset, picture_files: list[str], monkeypatch: pytest.MonkeyPatch
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
    same_scores(found, tiny_model, picture_files)
    with pytest.raises(ValueError, match="has several splits: choose one by --split: train, test"):
        names(address)
    with pytest.raises(ValueError, match="has no split 'val': choose one of train, test"):
        names(address, split="val")


def test_a_stream_is_read_no_further_than_a_few_batches(tiny_model: SindModel, picture_files: list[str]) -> None:
    """Memory does not grow with the dataset: rows wait where they are until the model is ready for them."""
    from sind_hf.scoring.scorer import score_pictures

    for workers in (0, 1):
        read = 0

        def stream() -> Iterator[Picture]:
            nonlocal read
            for number in range(10_000):
                read += 1
                yield Picture(f"#{number}", picture_files[0])

        rows = score_pictures(tiny_model, SindImageProcessor(), stream(), batch_size=2, workers=workers)
        picture, row = next(rows)
        assert picture.name == row.image == "#0" and read <= 2 * (1 + 3 * workers)
        rows.close()


def test_a_stream_that_breaks_keeps_what_was_scored(
    tiny_model: SindModel, encoded: Dataset, picture_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def rows() -> Iterator[dict[str, Any]]:
        for number, file in enumerate(picture_files):
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


def test_remote_files_are_read_where_they_are_decoded(picture_files: list[str], tmp_path: Path) -> None:
    picture = Picture("shown", RemoteFile(Path(picture_files[0]).as_uri()))
    expected = SindImageProcessor().make_views(picture_files[0])
    assert (picture.make_views(SindImageProcessor(), "center")[1] == expected[1]).all()
    with pytest.raises(ValueError, match="^shown: cannot be read"):
        Picture("shown", RemoteFile("file:///gone/for/good.jpg")).load()


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_without_their_source_are_refused(
    manifest: Path, encoded: Dataset, picture_files: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="m.json: a manifest: name the folder .* by --image-root"):
        names(manifest)
    with pytest.raises(ValueError, match="--image-root belongs to manifests"):
        names(tmp_path, image_root=tmp_path)
    with pytest.raises(ValueError, match="--split belongs to datasets"):
        names(tmp_path, split="train")
    encoded.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="has no column 'image': choose one of id, photo"):
        names(tmp_path / "t.parquet", image_column="image")
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"broken\.parquet: cannot be opened as a dataset"):
        names(tmp_path / "broken.parquet")


def test_a_folder_of_pictures_stays_one_with_parquet_files_in_it(
    encoded: Dataset, picture_files: list[str], tmp_path: Path
) -> None:
    encoded.to_parquet(tmp_path / "scores.parquet")
    assert names(tmp_path) == picture_files
    for file in picture_files:
        shutil.move(file, Path(file).with_suffix(".gone"))
    assert names(tmp_path) == [f"{tmp_path}/train#{number}" for number in range(5)]


def test_sources_go_to_other_processes(encoded: Dataset, picture_files: list[str], tmp_path: Path) -> None:
    encoded.to_parquet(tmp_path / "t.parquet")
    sources = pickle.loads(pickle.dumps(open_sources([tmp_path / "t.parquet", *picture_files[:2]])))
    assert [picture.name for picture in sources][4:] == [f"{tmp_path}/t.parquet#4", *picture_files[:2]]
