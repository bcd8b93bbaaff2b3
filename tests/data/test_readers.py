"""What all readers share: finding a download, checking its images, and choosing scenes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers import raw_trees
from sind_hf.data.manifests import catalog
from sind_hf.data.readers import READERS, DatasetNotFoundError, LabelFileError, build

KONIQ = [(f"{number}.jpg", 40.0 + number) for number in range(10, 16)]


def test_every_dataset_of_the_catalog_has_a_reader() -> None:
    assert set(READERS) == {*catalog.CATALOG, "folder"}
    for name, reader in READERS.items():
        assert reader.name == name
        assert name == "folder" or catalog.get(name).prefix.rstrip("/") not in reader.folders


def test_missing_images_are_named_and_the_others_kept(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    for name in ("10.jpg", "13.jpg"):
        (tmp_path / "koniq10k/1024x768" / name).unlink()
    result = build("koniq10k", tmp_path)
    assert result.missing == ["koniq10k/1024x768/10.jpg", "koniq10k/1024x768/13.jpg"]
    assert result.unreadable == []
    assert not result.complete
    assert [entry.score for entry in result.manifest.entries] == [51.0, 52.0, 54.0, 55.0]


def test_unreadable_images_are_named_with_verify_only(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    folder = tmp_path / "koniq10k/1024x768"
    Image.effect_noise((64, 64), 60).save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    for name, content in {"11.jpg": b"", "12.jpg": b"<html>not found</html>", "14.jpg": whole[:-400]}.items():
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    assert build("koniq10k", tmp_path).complete
    calls: list[tuple[int, int]] = []
    result = build("koniq10k", tmp_path, verify=True, progress=lambda done, total: calls.append((done, total)))
    assert [path.rsplit("/", 1)[-1] for path, _ in result.unreadable] == ["11.jpg", "12.jpg", "14.jpg"]
    assert all(reason and "\n" not in reason for _, reason in result.unreadable)
    assert "truncated" in result.unreadable[2][1]
    assert result.missing == []
    assert [entry.score for entry in result.manifest.entries] == [50.0, 53.0, 55.0]
    assert calls == [(done, 6) for done in range(1, 7)]


def test_no_image_at_all(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    for path in (tmp_path / "koniq10k/1024x768").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="none of the 6 images .* the first should be koniq10k/1024x768/10.jpg"):
        build("koniq10k", tmp_path)


def test_only_damaged_images(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ[:1])
    (tmp_path / "koniq10k/1024x768/10.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="none of the 1 images can be used; .*10.jpg: .*cannot"):
        build("koniq10k", tmp_path, verify=True)


@pytest.mark.parametrize("root", [".", "koniq10k"], ids=["parent", "dataset folder"])
def test_root_is_the_parent_or_the_dataset_folder(tmp_path: Path, root: str) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    result = build("koniq10k", tmp_path / root)
    assert result.image_root == tmp_path
    assert result.manifest.entries[0].image == "koniq10k/1024x768/10.jpg"


def test_dataset_folder_with_a_name_of_its_own(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ, folder="images of the web")
    result = build("koniq10k", tmp_path / "images of the web")
    assert result.manifest.entries[0].image == "images of the web/1024x768/10.jpg"


def test_root_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    monkeypatch.chdir(tmp_path / "koniq10k")
    assert build("koniq10k", ".").manifest.entries[0].image == "koniq10k/1024x768/10.jpg"


def test_linked_dataset_folder_gives_paths_that_validate(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path / "disk", KONIQ, folder="koniq-full")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/koniq10k").symlink_to(tmp_path / "disk/koniq-full")
    result = build("koniq10k", tmp_path / "home")
    assert result.image_root == tmp_path / "disk"
    assert result.manifest.validate(result.image_root) == []


def test_labels_of_a_neighbour_are_not_taken(tmp_path: Path) -> None:
    # TID2008 has a file of the same name; asked for TID2013 in a folder that holds only TID2008, there is nothing.
    raw_trees.plain(
        tmp_path, {"tid2008/mos_with_names.txt": "5.5 I01_01_1.bmp\n"}, ["tid2008/distorted_images/I01_01_1.bmp"]
    )
    with pytest.raises(DatasetNotFoundError):
        build("tid2013", tmp_path)


@pytest.mark.parametrize("name", catalog.CATALOG)
def test_missing_label_files_are_named_with_place_and_home_page(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        build(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: label file ")
    assert "\n" not in message
    assert str(tmp_path) in message
    assert catalog.get(name).home_page in message
    for spellings in READERS[name].labels.values():
        assert spellings[0] in message


def test_one_of_two_label_files_missing(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, [("00001.jpg", 48.86, ["Plant"])])
    (tmp_path / "SPAQ/Annotations/Scene category labels.xlsx").unlink()
    with pytest.raises(LabelFileError) as caught:
        build("spaq", tmp_path)
    assert not isinstance(caught.value, DatasetNotFoundError)
    assert "annotations/Scene category labels.xlsx" in str(caught.value)
    assert "MOS and Image" not in str(caught.value)
    assert str(tmp_path / "SPAQ") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("bid", "BID/DatabaseGrades.xlsx", b"no zip", "not a readable .xlsx file"),
        (
            "koniq10k",
            "koniq10k/koniq10k_scores_and_distributions.csv",
            b"a,b\n1,2\n",
            "no column 'image_name', 'MOS_z",
        ),
        ("koniq10k", "koniq10k/koniq10k_scores_and_distributions.csv", b"\xff\xfe\x00a", "not a readable text table"),
        ("koniq10k", "koniq10k/koniq10k_scores_and_distributions.csv", b"", "its columns are none"),
        (
            "kadid10k",
            "kadid10k/dmos.csv",
            b"dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.5,1\nI01_01_02.png,I0",
            "row 3: ends after 2 fields; download the file again",
        ),
        ("tid2013", "TID2013/mos_with_names.txt", b"5.5 I01_01_1.bmp\n\xff\xfe\n", "not a text file"),
        ("live", "LIVE/dmos_realigned.mat", b"no matlab", "not a readable MATLAB file"),
        ("csiq", "CSIQ/csiq_label.txt", b"1600.AWGN.1.png\n", "line 1: expected 'name score'"),
    ],
)
def test_malformed_label_files(tmp_path: Path, name: str, file: str, content: bytes, message: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LabelFileError, match=message) as caught:
        build(name, tmp_path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_spreadsheet_without_the_sheet(tmp_path: Path) -> None:
    raw_trees.write_xlsx(tmp_path / "CID2013/CID2013 data - version 12112014.xlsx", [["Source_ID"]], sheet="MOS")
    with pytest.raises(LabelFileError, match="no sheet 'CID2013 MOS'; it has MOS"):
        build("cid2013", tmp_path)


def test_a_matlab_file_without_the_variable(tmp_path: Path) -> None:
    raw_trees.livec(tmp_path, [("100.bmp", 1.0)])
    raw_trees.savemat(tmp_path / "ChallengeDB_release/Data/AllMOS_release.mat", {"AllStdDev_release": [1.0]})
    with pytest.raises(LabelFileError, match="no variable 'AllMOS_release'; its variables are AllStdDev_release"):
        build("livec", tmp_path)


def test_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_trees.bid(tmp_path, [(1, 4.5)])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r'DatabaseGrades.xlsx needs openpyxl: pip install "sind-hf\[data\]"'):
        build("bid", tmp_path)


def test_copies_in_deeper_folders_do_not_win(tmp_path: Path) -> None:
    raw_trees.bid(tmp_path, [(1, 4.5)])
    raw_trees.write_images(tmp_path / "BID", ["a copy/DatabaseImage0001.JPG"])
    assert build("bid", tmp_path).manifest.entries[0].image == "BID/DatabaseImage0001.JPG"


def test_files_that_differ_in_case_only_are_told_apart(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, [("A.jpg", 1.0), ("a.jpg", 2.0)])
    if len(list((tmp_path / "koniq10k/1024x768").iterdir())) < 2:
        pytest.skip("needs a file system that tells upper from lower case")
    entries = build("koniq10k", tmp_path).manifest.entries
    assert [(entry.image[-5:], entry.score) for entry in entries] == [("A.jpg", 1.0), ("a.jpg", 2.0)]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    raw_trees.bid(tmp_path, [(1, 4.5)])
    (tmp_path / "BID/again").symlink_to(tmp_path / "BID")
    assert build("bid", tmp_path).complete


def test_unknown_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'koniq11k' is not in the catalog; did you mean 'koniq10k'"):
        build("koniq11k", tmp_path)
    with pytest.raises(ValueError, match="koniq10k: unknown option score; it takes none"):
        build("koniq10k", tmp_path, score="quality")
    with pytest.raises(ValueError, match="is not a folder"):
        build("koniq10k", tmp_path / "nowhere")


def test_scene_labels_of_a_set_that_has_its_own_scenes(tmp_path: Path) -> None:
    raw_trees.eva(tmp_path, [("71", "5", [4])])
    result = build("eva", tmp_path, scene_labels={"71.jpg": "human"})
    assert result.manifest.entries[0].scene == "still life"
    assert "scene labels not used: the label files leave no scene open" in result.notes
