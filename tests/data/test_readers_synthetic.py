"""Readers of distortions of reference images: LIVE, CSIQ, TID2013, KADID-10k, PIPAL."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import raw_trees
from sind_hf.data.manifests.manifest import ManifestEntry, ScoreInfo
from sind_hf.data.readers import LabelFileError, build


def write_live(root: Path, without: tuple[str, ...] = ()) -> None:
    """982 entries: DMOS 0.25, 0.5, …; every fifth is pristine; references in turn."""
    pristine = [index % 5 == 0 for index in range(982)]
    scores = [0.0 if clean else index / 4 for index, clean in enumerate(pristine)]
    references = ["ocean.bmp" if index % 2 else "bikes.bmp" for index in range(982)]
    raw_trees.live(root, scores, pristine, references, without=without)


def test_live(tmp_path: Path) -> None:
    write_live(tmp_path)
    result = build("live", tmp_path)
    entries = result.manifest.entries
    base = "databaserelease2"
    assert len(entries) == 982
    assert entries[0] == ManifestEntry(f"{base}/jp2k/img1.bmp", 0.0, "jp2k", 700, "bikes.bmp", "jp2k")
    assert entries[226] == ManifestEntry(f"{base}/jp2k/img227.bmp", 56.5, "jp2k", 700, "bikes.bmp", "jp2k")
    assert entries[227] == ManifestEntry(f"{base}/jpeg/img1.bmp", 56.75, "jpeg", 701, "ocean.bmp", "jpeg")
    assert entries[461] == ManifestEntry(f"{base}/wn/img2.bmp", 115.25, "wn", 702, "ocean.bmp", "wn")
    assert entries[634] == ManifestEntry(f"{base}/gblur/img1.bmp", 158.5, "gblur", 703, "bikes.bmp", "gblur")
    assert entries[981] == ManifestEntry(
        f"{base}/fastfading/img174.bmp", 245.25, "fastfading", 704, "ocean.bmp", "fastfading"
    )
    assert result.manifest.domain_names == {700: "jp2k", 701: "jpeg", 702: "wn", 703: "gblur", 704: "fastfading"}
    assert result.manifest.score.name == "DMOS"
    assert not result.manifest.score.higher_is_better
    assert result.manifest.reference_based
    assert result.manifest.source == "dmos_realigned.mat, refnames_all.mat"
    assert "197 of the 982 entries are pristine images" in result.notes


def test_live_does_not_take_an_image_of_another_distortion(tmp_path: Path) -> None:
    # All five folders have an img1.bmp.
    write_live(tmp_path, without=("wn/img1.bmp",))
    result = build("live", tmp_path)
    assert result.missing == ["databaserelease2/wn/img1.bmp"]
    assert len(result.manifest) == 981


def test_live_with_arrays_of_another_length(tmp_path: Path) -> None:
    write_live(tmp_path)
    raw_trees.savemat(
        tmp_path / "databaserelease2/refnames_all.mat", {"refnames_all": raw_trees.cells(["ocean.bmp"] * 779)}
    )
    with pytest.raises(LabelFileError, match="expected 982 values .* got 982, 982 and 779"):
        build("live", tmp_path)


CSIQ_ENTRIES = [
    ManifestEntry("CSIQ/dst_imgs/awgn/1600.AWGN.1.png", 0.062, "awgn", 800, "1600.png", "awgn"),
    ManifestEntry("CSIQ/dst_imgs/contrast/1600.contrast.2.png", 0.31, "contrast", 802, "1600.png", "contrast"),
    ManifestEntry("CSIQ/dst_imgs/jpeg2000/swarm.jpeg2000.5.png", 1.0, "jpeg2000", 805, "swarm.png", "jpeg2000"),
]


def test_csiq_with_the_name_list(tmp_path: Path) -> None:
    text = "1600.AWGN.1.png 0.062\n1600.contrast.2.png\t0.310\n\nswarm.jpeg2000.5.png 1.000\n"
    raw_trees.plain(tmp_path, {"CSIQ/csiq_label.txt": text}, [entry.image for entry in CSIQ_ENTRIES])
    result = build("csiq", tmp_path)
    assert result.manifest.entries == CSIQ_ENTRIES
    assert result.manifest.score == ScoreInfo("DMOS", (0.0, 1.0), False)
    assert result.manifest.reference_based


def test_csiq_with_the_official_spreadsheet(tmp_path: Path) -> None:
    blank = [None, None, None]
    raw_trees.write_xlsx(
        tmp_path / "CSIQ/csiq.DMOS.xlsx",
        [
            [],
            ["CSIQ database, DMOS values"],
            [],
            [*blank, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
            [*blank, 1600, 1, "noise", 1, 0.061, 0.062],
            [*blank, 1600, 6, "contrast", 2, 0.1, 0.31],
            [*blank, "swarm", 4, "jpeg 2000", 5, 0.02, 1.0],
            [*blank, None, None, None, None, None, None],
        ],
        sheet="all_by_image",
        before=["all_by_distortion"],
    )
    raw_trees.write_images(tmp_path, [entry.image for entry in CSIQ_ENTRIES])
    assert build("csiq", tmp_path).manifest.entries == CSIQ_ENTRIES


def test_csiq_images_in_one_folder(tmp_path: Path) -> None:
    raw_trees.plain(tmp_path, {"csiq/csiq_label.txt": "1600.BLUR.1.png 0.1\n"}, ["csiq/dst_imgs_all/1600.BLUR.1.png"])
    entries = build("csiq", tmp_path).manifest.entries
    assert entries == [ManifestEntry("csiq/dst_imgs_all/1600.BLUR.1.png", 0.1, "blur", 801, "1600.png", "blur")]


def test_tid2013_names_differ_in_case_from_the_files(tmp_path: Path) -> None:
    raw_trees.plain(
        tmp_path,
        {"tid2013/mos_with_names.txt": "5.51429 I01_01_1.bmp\n5.56757 i25_24_5.bmp\n"},
        ["tid2013/distorted_images/i01_01_1.bmp", "tid2013/distorted_images/I25_24_5.BMP"],
    )
    result = build("tid2013", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry("tid2013/distorted_images/i01_01_1.bmp", 5.51429, "I01", 901, "I01.BMP", "01"),
        ManifestEntry("tid2013/distorted_images/I25_24_5.BMP", 5.56757, "I25", 925, "I25.BMP", "24"),
    ]
    assert result.manifest.score == ScoreInfo("MOS", (0.0, 9.0), True)


def test_kadid10k(tmp_path: Path) -> None:
    text = (
        "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.496\nI01_01_02.png,I01.png,4.33,0.869\n"
        "I81_25_05.png,I81.png,1.2,0.3\n"
    )
    names = ["I01_01_01.png", "I01_01_02.png", "I81_25_05.png"]
    raw_trees.plain(tmp_path, {"kadid10k/dmos.csv": text}, [f"kadid10k/images/{name}" for name in names])
    result = build("kadid10k", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry(f"kadid10k/images/{names[0]}", 4.57, "gaussian blur", 601, "I01.png", "gaussian blur"),
        ManifestEntry(f"kadid10k/images/{names[1]}", 4.33, "gaussian blur", 601, "I01.png", "gaussian blur"),
        ManifestEntry(f"kadid10k/images/{names[2]}", 1.2, "contrast change", 625, "I81.png", "contrast change"),
    ]
    assert result.manifest.score.higher_is_better  # although the column is called dmos
    assert result.manifest.score.range == (1.0, 5.0)


PIPAL_TEXTS = {
    "PIPAL/training/Train_Label/A0001.txt": "A0001_00_00.bmp,1500.0\nA0001_03_11.bmp,868.2988\n",
    "PIPAL/training/Train_Label/A0200.txt": "A0200_00_00.bmp,1857\n",
    "PIPAL/validation/val_label.txt": "A0018_10_00.bmp,0.625\n",
}
PIPAL_IMAGES = [
    "PIPAL/training/Distortion_1/A0001_00_00.bmp",
    "PIPAL/training/Distortion_4/A0001_03_11.bmp",
    "PIPAL/training/Distortion_1/A0200_00_00.bmp",
    "PIPAL/training/Train_Ref/A0001.bmp",
    "PIPAL/validation/Dis/A0018_10_00.bmp",
]


def test_pipal(tmp_path: Path) -> None:
    raw_trees.plain(tmp_path, PIPAL_TEXTS, PIPAL_IMAGES)
    result = build("pipal", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry(PIPAL_IMAGES[0], (1500 - 868.2988) / (1857 - 868.2988), "A0001", 1501, "A0001.bmp", "00"),
        ManifestEntry(PIPAL_IMAGES[1], 0.0, "A0001", 1501, "A0001.bmp", "03"),
        ManifestEntry(PIPAL_IMAGES[2], 1.0, "A0200", 1700, "A0200.bmp", "00"),
        ManifestEntry(PIPAL_IMAGES[4], 0.625, "A0018", 1518, "A0018.bmp", "10"),
    ]
    assert result.manifest.domain_names == {1501: "A0001", 1700: "A0200", 1518: "A0018"}
    assert result.manifest.validate(tmp_path) == []


def test_pipal_training_part_only(tmp_path: Path) -> None:
    texts = {name: text for name, text in PIPAL_TEXTS.items() if "training" in name}
    raw_trees.plain(tmp_path, texts, PIPAL_IMAGES[:4])
    result = build("pipal", tmp_path)
    assert len(result.manifest) == 3
    assert "no validation labels found: training images only" in result.notes


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("csiq", "CSIQ/csiq_label.txt", "awgn_1600_1.png 0.1\n"),
        ("tid2013", "TID2013/mos_with_names.txt", "5.5 reference.bmp\n"),
        ("kadid10k", "kadid10k/dmos.csv", "dist_img,ref_img,dmos\nI01.png,I01.png,4\n"),
        ("pipal", "PIPAL/training/Train_Label/A0001.txt", "image.bmp,1500\n"),
    ],
)
def test_names_that_carry_no_distortion_are_refused(tmp_path: Path, name: str, file: str, text: str) -> None:
    raw_trees.plain(tmp_path, {file: text}, [])
    with pytest.raises(LabelFileError, match="is not a .* name, expected"):
        build(name, tmp_path)
