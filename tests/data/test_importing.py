from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sind_hf.data.importing.importer import ImportResult, import_manifest
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ManifestError, ScoreInfo


def image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(path)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with the images a.png, b.png and sub/c.png and no table."""
    folder = tmp_path / "study"
    for number, name in enumerate(("a.png", "b.png", "sub/c.png")):
        image(folder / name, 50 * number)
    return folder


ROWS = [
    {"Image Name": "a.png", "MOS": 1.5, "Category": "sea"},
    {"Image Name": "b.png", "MOS": 2, "Category": "sky"},
    {"Image Name": "sub/c.png", "MOS": 4.25, "Category": "sea"},
]
ENTRIES = [
    ManifestEntry("a.png", 1.5, "sea"),
    ManifestEntry("b.png", 2.0, "sky"),
    ManifestEntry("sub/c.png", 4.25, "sea"),
]


def separated(delimiter: str) -> str:
    lines = [list(ROWS[0]), *(list(map(str, row.values())) for row in ROWS)]
    return "\r\n".join(delimiter.join(line) for line in lines) + "\r\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("scores.csv", separated(",").encode()),
        ("scores.csv", separated(";").encode("utf-8-sig")),
        ("scores.tsv", separated("\t").encode("utf-16")),
        ("scores.jsonl", "\n".join(json.dumps(row) for row in ROWS).encode()),
        ("scores.json", json.dumps(ROWS).encode()),
    ],
)
def test_every_kind_of_table_gives_the_same_manifest(study: Path, name: str, data: bytes) -> None:
    (study / name).write_bytes(data)
    result = import_manifest(study / name)
    assert result.manifest.entries == ENTRIES
    assert result.columns == {"image": "Image Name", "score": "MOS", "scene": "Category"}
    assert (result.left_out, result.image_root) == ([], study)
    assert result.manifest.dataset == "study" and result.manifest.source == name  # the folder's name
    assert result.manifest.score == ScoreInfo("MOS")
    assert result.manifest.validate(study, verify=True) == []


def test_parquet_with_named_classes(study: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "Image Name": datasets.Value("string"),
            "MOS": datasets.Value("float64"),
            "Category": datasets.ClassLabel(names=["sky", "sea"]),
        }
    )
    table = datasets.Dataset.from_list(
        [{**row, "Category": ["sky", "sea"].index(row["Category"])} for row in ROWS], features=features
    )
    table.to_parquet(study / "scores.parquet")
    assert import_manifest(study / "scores.parquet").manifest.entries == ENTRIES


def test_bad_rows_are_left_out_by_number_and_the_others_kept(study: Path) -> None:
    (study / "scores.csv").write_bytes(
        b"image,mos,scene\n"
        b"a.png,1.5,sea\n"
        b"b.png,,sky\n"
        b"b.png,n/a,sky\n"
        b"b.png,nan,sky\n"
        b"b.png,1_0,sky\n"
        b"b.png,inf,sky\n"
        b"b.png\n"
        b",3,sky\n"
        b"absent.png,3,sky\n"
        b"../outside.png,3,sky\n"
        b"/etc/passwd,3,sky\n"
        b"a.png,3,sky\n"
        b"\n"
        b"b\xe4.png,3,sky\n"
        b"b.png,3,s\x1bky\n"
        b"b.png,3,\n"
        b"sub\\c.png, 4.25 , sea \n"
    )
    result = import_manifest(study / "scores.csv")
    assert result.manifest.entries == [
        ManifestEntry("a.png", 1.5, "sea"),
        ManifestEntry("b.png", 3.0),
        ManifestEntry("sub/c.png", 4.25, "sea"),
    ]
    assert [row.row for row in result.left_out] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16]
    reasons = {row.row: row.what for row in result.left_out}
    assert "missing" in reasons[3] and "not a number" in reasons[4] and "1 cells" in reasons[8]
    assert "no such file" in reasons[10] and "'..'" in reasons[11] and "outside the image root" in reasons[12]
    assert "already in row 2" in reasons[13] and "broken Unicode" in reasons[15]
    assert all("\n" not in str(row) for row in result.left_out)


def test_bad_lines_of_json_lines_are_left_out(study: Path) -> None:
    lines = ['{"image": "a.png", "score": 1}', "{", "[1]", '{"image": "b.png", "score": true}', "[" * 100_000]
    lines += ['{"image": 5, "score": 1}', '{"image": "b.png", "score": NaN}', '{"image": "b.png", "score": 2}']
    (study / "s.jsonl").write_text("\n".join(lines))
    result = import_manifest(study / "s.jsonl")
    assert [entry.image for entry in result.manifest.entries] == ["a.png", "b.png"]
    assert [row.row for row in result.left_out] == [2, 3, 4, 5, 6, 7]


def test_columns_can_be_named_and_wrong_names_are_explained(study: Path) -> None:
    (study / "s.csv").write_text("photo,mos,sharpness,place\na.png,1,9,x\nb.png,2,8,y\n")
    with pytest.raises(ManifestError, match="no column looks like the image.*'photo', 'mos'"):
        import_manifest(study / "s.csv")
    result = import_manifest(study / "s.csv", columns={"image": "photo", "score": "sharpness", "scene": "place"})
    assert [(entry.score, entry.scene) for entry in result.manifest.entries] == [(9, "x"), (8, "y")]
    with pytest.raises(ManifestError, match="did you mean 'photo'"):
        import_manifest(study / "s.csv", columns={"image": "photos"})
    with pytest.raises(ManifestError, match="it can name image, score"):
        import_manifest(study / "s.csv", columns={"picture": "photo"})


def test_score_meaning_is_the_users_and_dataset_name_too(study: Path) -> None:
    (study / "s.csv").write_text("image,dmos\na.png,1\n")
    assert import_manifest(study / "s.csv").notes == ["scores are read from the column 'dmos', higher taken as better"]
    info = ScoreInfo("DMOS", (0.0, 10.0), False)
    result = import_manifest(study / "s.csv", score=info, dataset="mine")
    assert (result.manifest.score, result.manifest.dataset, result.notes) == (info, "mine", [])


def test_reference_distortion_and_domain_columns(study: Path) -> None:
    (study / "s.csv").write_text(
        "image,score,ref_img,dist_type,domain_id,scene\n"
        "a.png,1,r.png,3,901,x\nb.png,2,,,,\nsub/c.png,3,,,901,other\nsub/c.png,3,,,abc,\n"
    )
    result = import_manifest(study / "s.csv")
    assert result.manifest.entries == [
        ManifestEntry("a.png", 1.0, "x", 901, "r.png", "3"),
        ManifestEntry("b.png", 2.0),
    ]
    assert result.manifest.reference_based and result.manifest.domain_names == {901: "x"}
    assert [row.row for row in result.left_out] == [4, 5]


def test_images_are_found_by_name_below_the_root_if_only_one_has_it(study: Path) -> None:
    image(study / "sub" / "d.png")
    image(study / "other" / "d.png")
    os.mkfifo(study / "sub" / "pipe.png")
    (study / "s.csv").write_text("image,score\nc.png,1\nd.png,2\nelsewhere/a.png,3\npipe.png,4\n")
    result = import_manifest(study / "s.csv")
    assert [entry.image for entry in result.manifest.entries] == ["sub/c.png", "a.png"]
    assert "2 files of that name" in result.left_out[0].what and "no such file" in result.left_out[1].what


def test_absolute_paths_inside_the_root_become_relative_and_links_out_are_refused(study: Path, tmp_path: Path) -> None:
    image(tmp_path / "secret.png")
    (study / "link.png").symlink_to(tmp_path / "secret.png")
    (study / "s.csv").write_text(f"image,score\n{study}/sub/c.png,1\n{tmp_path}/secret.png,2\nlink.png,3\n")
    result = import_manifest(study / "s.csv")
    assert [entry.image for entry in result.manifest.entries] == ["sub/c.png"]
    assert "outside the image root" in result.left_out[0].what and "symbolic link" in result.left_out[1].what


def test_table_and_images_may_lie_apart(study: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("image,score\nsub/c.png,1\n")
    assert import_manifest(tmp_path / "s.csv", image_root=study).manifest.entries == [ManifestEntry("sub/c.png", 1.0)]
    with pytest.raises(ManifestError, match="image root is not a folder"):
        import_manifest(tmp_path / "s.csv", image_root=tmp_path / "absent")


def test_folder_with_scenes_as_subfolders(tmp_path: Path) -> None:
    folder = tmp_path / "v1.0"
    for name in ("sea/1.png", "sea/2.png", "sky/3.png"):
        image(folder / name)
    (folder / "my_scores.csv").write_text("name,mos\n1.png,1\n2.png,2\nsky/3.png,3\n")
    (folder / "observers.csv").write_text("observer,age\n")
    result = import_manifest(folder)
    assert [(entry.image, entry.scene) for entry in result.manifest.entries] == [
        ("sea/1.png", "sea"),
        ("sea/2.png", "sea"),
        ("sky/3.png", "sky"),
    ]
    assert "subfolders are taken as scenes" in result.notes[0]
    assert result.manifest.dataset == "v1.0"


def test_one_subfolder_is_not_a_scene(study: Path) -> None:
    (study / "scores.csv").write_text("name,mos\nsub/c.png,1\n")
    assert import_manifest(study).manifest.entries[0].scene is None


def test_imagefolder_metadata(study: Path) -> None:
    (study / "metadata.csv").write_text("file_name,score,label\na.png,1,x\nb.png,2,y\n")
    (study / "scores.csv").write_text("file_name,score\nb.png,9\n")
    assert [entry.scene for entry in import_manifest(study).manifest.entries] == ["x", "y"]


def test_folder_without_a_clear_table(study: Path) -> None:
    with pytest.raises(ManifestError, match="no table of scores"):
        import_manifest(study)
    (study / "one.csv").write_text("image,score\n")
    (study / "two.csv").write_text("image,score\n")
    with pytest.raises(ManifestError, match="several tables"):
        import_manifest(study)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("s.csv", b"", "no header row"),
        ("s.csv", b"image,score\n", "it has none"),
        ("s.csv", b"image,score\nabsent.png,1\n", "none of its 1 rows.*row 2"),
        ("s.csv", b"image,score,score\n", "appears twice"),
        ("s.json", b'{"files": []}', "manifest already"),
        ("s.json", b'{"a": 1}', "must be a list"),
        ("s.json", b"nope", "not JSON"),
        ("s.json", b"[" * 100_000, "not JSON"),
        ("s.jsonl", b"[1]\n", "no line is a JSON object"),
        ("s.parquet", b"PAR1 not really", "not a Parquet table"),
        ("s.tsv", b"\xff\xfea", "damaged UTF-16"),
        ("s.xml", b"<a/>", "cannot be imported"),
    ],
)
def test_unusable_tables_give_one_line(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError, match=expected) as caught:
        import_manifest(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        import_manifest(tmp_path / "absent.csv")
    with pytest.raises(ManifestError, match="no such file or folder"):
        import_manifest(str(tmp_path / "absent"))


def saved_dataset(study: Path, embed: bool) -> object:
    datasets = pytest.importorskip("datasets")
    rows = {
        "picture": [str(study / "a.png"), str(study / "sub/c.png"), str(study / "b.png")],
        "mos": [1.0, 2.0, None],
        "scene": [1, 0, 0],
    }
    if embed:
        rows["picture"] = [{"bytes": Path(path).read_bytes(), "path": "x/same.png"} for path in rows["picture"]]
    return datasets.Dataset.from_dict(
        rows,
        features=datasets.Features(
            {
                "picture": datasets.Image(),
                "mos": datasets.Value("float64"),
                "scene": datasets.ClassLabel(names=["sky", "sea"]),
            }
        ),
    )


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_datasets_that_hold_their_images_have_them_written_out(study: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / ("data.parquet" if kind == "parquet" else "data")
    dataset = saved_dataset(study, embed=True)
    dataset.to_parquet(source) if kind == "parquet" else dataset.save_to_disk(source)
    named = {"image": "picture"}
    with pytest.raises(ManifestError, match="images_to"):
        import_manifest(source, columns=named)
    target = tmp_path / "images"
    result = import_manifest(source, columns=named, images_to=target)
    assert result.manifest.entries == [ManifestEntry("same.png", 1.0, "sea"), ManifestEntry("same_2.png", 2.0, "sky")]
    assert result.image_root == target
    assert (target / "same_2.png").read_bytes() == (study / "sub/c.png").read_bytes()
    assert len(list(target.iterdir())) == 2  # the row without a score has no image written
    assert [row.row for row in result.left_out] == [3]
    assert import_manifest(source, columns=named, images_to=target).manifest == result.manifest  # again, same place


def test_damaged_embedded_images_are_left_out(study: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    good = (study / "a.png").read_bytes()
    datasets.Dataset.from_dict({"image": [b"no image", good], "score": [1.0, 2.0]}).save_to_disk(tmp_path / "d")
    result = import_manifest(tmp_path / "d", images_to=tmp_path / "out")
    assert [entry.image for entry in result.manifest.entries] == ["000002.png"]
    assert "cannot be opened" in result.left_out[0].what


def test_datasets_of_paths_keep_them_or_copy_them(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda name: saved_dataset(study, embed=False))
    named = {"image": "picture"}
    result = import_manifest("user/study", columns=named, image_root=study)
    assert [entry.image for entry in result.manifest.entries] == ["a.png", "sub/c.png"]
    copied = import_manifest("user/study", columns=named, image_root=study, images_to=tmp_path / "out")
    assert copied.manifest.entries == result.manifest.entries
    assert (tmp_path / "out/sub/c.png").read_bytes() == (study / "sub/c.png").read_bytes()


def test_images_of_the_target_folder_are_never_overwritten(study: Path, tmp_path: Path) -> None:
    (study / "s.csv").write_text("image,score\na.png,1\nb.png,2\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_bytes(b"mine")
    result = import_manifest(study / "s.csv", images_to=tmp_path / "out")
    assert [entry.image for entry in result.manifest.entries] == ["b.png"]
    assert "other content" in result.left_out[0].what
    assert (tmp_path / "out/a.png").read_bytes() == b"mine"


def test_a_copy_that_is_cut_off_is_not_an_image(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next import would leave its row out, as that of an image with other content."""

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    (study / "s.csv").write_text("image,score\na.png,1\nb.png,2\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ManifestError, match=r"a\.png: cannot be written \(the disk is full\)"):
            import_manifest(study / "s.csv", images_to=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert len(import_manifest(study / "s.csv", images_to=tmp_path / "out").manifest) == 2


def test_an_import_opens_nothing_that_a_row_names(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features in the place of others are decoded by nobody: neither of the column wanted nor of its neighbors."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Value("string"), "score": datasets.Value("float64"), "x": {"y": datasets.Image()}}
    )
    rows = {"image": ["a.png"], "score": [1.0], "x": [{"y": {"bytes": None, "path": "file:///gone/for/good.png"}}]}
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.Dataset.from_dict(rows, features))
    opened: list[object] = []
    monkeypatch.setattr("datasets.features.image.xopen", lambda path, *_, **__: opened.append(path))
    result = import_manifest("user/study", image_root=tmp_path)
    assert [entry.image for entry in result.manifest.entries] == ["a.png"] and opened == []


def test_splits_of_saved_datasets(study: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_dict({"image": ["a.png"], "score": [1.0]})
    two = datasets.Dataset.from_dict({"image": ["b.png"], "score": [2.0]})
    datasets.DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "d")
    with pytest.raises(ManifestError, match="several splits; choose one of train, test"):
        import_manifest(tmp_path / "d", image_root=study)
    with pytest.raises(ManifestError, match="no split 'val'"):
        import_manifest(tmp_path / "d", image_root=study, split="val")
    assert import_manifest(tmp_path / "d", image_root=study, split="test").manifest.entries[0].image == "b.png"
    datasets.DatasetDict({"only": one}).save_to_disk(tmp_path / "e")
    assert len(import_manifest(tmp_path / "e", image_root=study).manifest) == 1


def test_hub_dataset(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[str] = []

    def load(name: str) -> object:
        asked.append(name)
        if name != "user/study":
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist\non the Hub")
        return datasets.DatasetDict({"train": saved_dataset(study, embed=True)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    result = import_manifest("user/study", columns={"image": "picture"}, images_to=tmp_path / "out")
    assert (asked, result.manifest.dataset, result.manifest.source) == (["user/study"], "study", "user/study")
    with pytest.raises(ManifestError, match="nor a dataset that can be loaded.*doesn't exist on the Hub"):
        import_manifest("user/absent")


def test_real_study(shared: Path) -> None:
    result = import_manifest(shared / "data/video_codec_mos/scores.csv", score=ScoreInfo("MOS", (1.0, 5.0)))
    assert len(result.manifest) == 324 and result.left_out == []
    assert len(result.manifest.scene_classes()[0]) == 38
    assert result.manifest.validate(result.image_root) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["f.csv", "f.tsv", "f.jsonl", "f.json"]), body=st.binary(max_size=80), like=st.booleans())
def test_any_bytes_give_a_valid_manifest_or_one_error(study: Path, name: str, body: bytes, like: bool) -> None:
    head = {
        "f.csv": b"image,score\na.png,1\n",
        "f.tsv": b"image\tscore\nb.png\t2\n",
        "f.json": b'[{"image": "a.png", ',
    }
    (study / name).write_bytes((head.get(name, b'{"image": "a.png", "score": 1}\n') if like else b"") + body)
    try:
        result = import_manifest(study / name)
    except ManifestError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(result.manifest, Manifest) and result.manifest.validate(study) == []


def rows_of(path: Path, text: str, encoding: str = "utf-8", **options: Any) -> tuple[dict[str, float], ImportResult]:
    """Scores by image of a table in a folder that has a.png and b.png."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(path / name)
    (path / "t.csv").write_bytes(text.encode(encoding))
    result = import_manifest(path / "t.csv", **options)
    return {entry.image: entry.score for entry in result.manifest.entries}, result


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,mos,,\na.png,3.5,,\nb.png,4,,\n,,,\n", "utf-8"),
        ("image,mos,,comment,\na.png,3.5,,,\nb.png,4,,good,\n", "utf-8-sig"),
        ("sep=;\nimage;mos\na.png;3,5\nb.png;4\n", "utf-8"),
        ('"sep=;"\r\nImage;MOS;\r\na.png;3,5;\r\nb.png;4,000;\r\n', "utf-8-sig"),
        ("IMAGE NAME;Mean opinion score\na.png ;3,5\nb.png;4\n", "utf-8"),
        ("Study of 2024\n\nFile name,Score\na.png,3.5\nb.png,4\n", "utf-8"),
        ("Study, second round, 2024\nimage;mos;\na.png;3,5;\nb.png;4;\n", "utf-8"),
        ('image,mos\na.png,"3,5"\nb.png,4\n', "utf-8"),
        ("image\tmos\t\na.png\t3,5\t\nb.png\t4\t\n", "utf-16"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    scores, result = rows_of(tmp_path, text, encoding)
    assert scores == {"a.png": 3.5, "b.png": 4.0} and not result.left_out


def test_a_number_that_can_be_read_in_two_ways_is_left_out(tmp_path: Path) -> None:
    scores, result = rows_of(tmp_path, 'image,mos\na.png,"1,234"\nb.png,4\n')
    assert scores == {"b.png": 4.0} and "two ways" in result.left_out[0].what


def test_spreadsheets(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    book = openpyxl.Workbook()
    for row in (["Study of 2024"], [], ["Image name", "MOS", None], ["a.png", 3.5, None], ["b.png ", "4,5", None], []):
        book.active.append(row)
    book.save(tmp_path / "scores.xlsx")
    result = import_manifest(tmp_path / "scores.xlsx")
    assert [(entry.image, entry.score) for entry in result.manifest.entries] == [("a.png", 3.5), ("b.png", 4.5)]
    assert result.columns == {"image": "Image name", "score": "MOS"}


def test_a_named_column_is_found_whatever_its_case(tmp_path: Path) -> None:
    text = "remarks\nimage;Rating A;Rating B\na.png;1;3,5\nb.png;1;4\n"
    scores, _ = rows_of(tmp_path, text, columns={"score": "rating_b"})
    assert scores == {"a.png": 3.5, "b.png": 4.0}


def test_several_ratings_are_averaged_on_request(tmp_path: Path) -> None:
    text = "image,mos,scene\na.png,3,x\nb.png,4,y\na.png,4,x\na.png,5,x\nb.png,1,x\n"
    scores, result = rows_of(tmp_path, text, mean=True)
    assert scores == {"a.png": 4.0, "b.png": 4.0}
    assert ["row 6" in str(row) and "another scene" in row.what for row in result.left_out] == [True]
    assert any("1 image with 3 to 3 ratings" in note for note in result.notes)
    scores, result = rows_of(tmp_path, text)
    assert scores == {"a.png": 3.0, "b.png": 4.0}
    assert len(result.left_out) == 3 and any("--mean" in note for note in result.notes)


def test_images_are_found_in_another_case_or_unicode_form(tmp_path: Path) -> None:
    names = {"IMG_1.jpg": "IMG_1.JPG", "caf\u00e9.png": "cafe\u0301.png", "sub/B.PNG": "Sub/b.png"}
    for place in (*names.values(), "other/b.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place, "PNG")
    (tmp_path / "t.csv").write_text("image,mos\n" + "".join(f"{name},3\n" for name in names), encoding="utf-8")
    result = import_manifest(tmp_path / "t.csv")
    assert [entry.image for entry in result.manifest.entries] == list(names.values())
