"""Readers of authentic distortions: SPAQ, KonIQ-10k, LIVE in the Wild, BID, CID2013."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import raw_trees
from sind_hf.data.manifests.manifest import ManifestEntry, ScoreInfo
from sind_hf.data.readers import build

SPAQ_IMAGES = [
    ("00001.jpg", 48.86, ["Night scene"]),
    ("00002.jpg", 62.5, ["Landscape", "Plant"]),
    ("00003.jpg", 77.25, ["Animal", "Human", "Others"]),
]


def test_spaq(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, SPAQ_IMAGES)
    labels = {"SPAQ/TestImage/00002.jpg": "Plant", "00003.jpg": "Animal"}
    result = build("spaq", tmp_path, scene_labels=labels)
    assert result.manifest.entries == [
        ManifestEntry("SPAQ/TestImage/00001.jpg", 48.86, "Night scene", 105),
        ManifestEntry("SPAQ/TestImage/00002.jpg", 62.5, "Plant", 106),
        ManifestEntry("SPAQ/TestImage/00003.jpg", 77.25, "Animal", 100),
    ]
    assert result.manifest.dataset == "spaq"
    assert result.manifest.score == ScoreInfo("MOS", (0.0, 100.0), True)
    assert result.manifest.domain_names == dict(enumerate(raw_trees.SPAQ_SCENES, start=100))
    assert not result.manifest.reference_based
    assert result.manifest.source == (
        "Scene category labels.xlsx, MOS and Image attribute scores.xlsx; scenes: 2 from scene labels"
    )
    assert result.complete
    assert result.image_root == tmp_path


def test_spaq_chooses_among_the_marked_scenes_by_seed(tmp_path: Path) -> None:
    images = [(f"{index:05d}.jpg", 50.0, ["Animal", "Human", "Others"]) for index in range(1, 101)]
    raw_trees.spaq(tmp_path, images)

    def scenes(seed: int) -> list[str | None]:
        return [entry.scene for entry in build("spaq", tmp_path, seed=seed).manifest.entries]

    assert set(scenes(0)) == {"Animal", "Human", "Others"}
    assert scenes(0) == scenes(0)
    assert scenes(0) != scenes(1)
    result = build("spaq", tmp_path, seed=7)
    assert result.manifest.source.endswith("; scenes: 100 chosen among several with seed 7")
    assert "scenes: 100 chosen among several with seed 7" in result.notes
    # A part of the images gets the scenes that it has in the whole.
    whole = scenes(3)
    for name in ("00001.jpg", "00050.jpg"):
        (tmp_path / "SPAQ/TestImage" / name).unlink()
    assert scenes(3) == [scene for index, scene in enumerate(whole, start=1) if index not in (1, 50)]


def test_spaq_scene_labels_come_first_then_the_seeded_choice(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, SPAQ_IMAGES)
    result = build("spaq", tmp_path, scene_labels={"00003.jpg": "Others"}, seed=4)
    assert [entry.scene for entry in result.manifest.entries][2] == "Others"
    assert result.manifest.entries[1].scene in ("Landscape", "Plant")
    assert "scenes: 1 from scene labels, 1 chosen among several with seed 4" in result.notes


def test_spaq_refuses_a_label_that_is_not_among_the_marked_scenes(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, SPAQ_IMAGES)
    with pytest.raises(ValueError, match=r"'Animal' of SPAQ/TestImage/00002.jpg is not one of .*: Landscape, Plant"):
        build("spaq", tmp_path, scene_labels={"00002.jpg": "Animal"})


def test_spaq_picker_sees_existing_images_with_several_scenes_only(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, [*SPAQ_IMAGES, ("00004.jpg", 1.0, ["Animal", "Plant"])])
    (tmp_path / "SPAQ/TestImage/00004.jpg").unlink()
    asked = []

    def last(images: list[Path], scenes: list[tuple[str, ...]]) -> list[str]:
        asked.extend(images)
        assert all(image.is_file() for image in images)
        return [names[-1] for names in scenes]

    result = build("spaq", tmp_path, scene_labels=last)
    assert [image.name for image in asked] == ["00002.jpg", "00003.jpg"]
    assert [entry.scene for entry in result.manifest.entries] == ["Night scene", "Plant", "Others"]


def test_picker_must_answer_for_every_image(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, SPAQ_IMAGES)
    with pytest.raises(ValueError, match="returned 1 scenes for 2 images"):
        build("spaq", tmp_path, scene_labels=lambda images, scenes: ["Plant"])


def test_spaq_tables_in_different_order_and_an_image_without_a_row(tmp_path: Path) -> None:
    raw_trees.spaq(tmp_path, SPAQ_IMAGES)
    raw_trees.write_xlsx(
        tmp_path / "SPAQ/Annotations/Scene category labels.xlsx",
        [
            ["Image name", *reversed(raw_trees.SPAQ_SCENES)],
            ["00003.jpg", 0, 0, 0, 0, 0, 0, 0.5, 0, 0],
            ["00001.jpg", 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ],
    )
    result = build("spaq", tmp_path)
    assert [(entry.scene, entry.domain_id) for entry in result.manifest.entries] == [
        ("Others", 108),
        (None, None),
        ("Human", 102),
    ]
    assert "images without a scene in the scene labels: 1" in result.notes


KONIQ_IMAGES = [("10004473376.jpg", 77.3836206896552), ("10007357496.jpg", 68.7285714285714)]


def test_koniq10k_without_scene_labels(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ_IMAGES)
    result = build("koniq10k", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry("koniq10k/1024x768/10004473376.jpg", 77.3836206896552),
        ManifestEntry("koniq10k/1024x768/10007357496.jpg", 68.7285714285714),
    ]
    assert result.manifest.domain_names == {}
    assert result.manifest.score == ScoreInfo("MOS", (0.0, 100.0), True)
    assert result.manifest.source == "koniq10k_scores_and_distributions.csv; scenes: 2 without a scene"


def test_koniq10k_with_scene_labels_has_no_class_for_others(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ_IMAGES)
    labels = {"10004473376.jpg": "Landscape", "10007357496.jpg": "Still-life"}
    entries = build("koniq10k", tmp_path, scene_labels=labels).manifest.entries
    assert [(entry.scene, entry.domain_id) for entry in entries] == [("Landscape", 304), ("Still-life", 307)]
    with pytest.raises(ValueError, match="'Others' of koniq10k/1024x768/10004473376.jpg is not one of"):
        build("koniq10k", tmp_path, scene_labels={"10004473376.jpg": "Others"})


def test_koniq10k_archives_in_folders_of_their_own(tmp_path: Path) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ_IMAGES, folder="KonIQ-10k")
    folder = tmp_path / "KonIQ-10k"
    (folder / "koniq10k_1024x768").mkdir()
    (folder / "1024x768").rename(folder / "koniq10k_1024x768" / "1024x768")
    (folder / "scores").mkdir()
    name = "koniq10k_scores_and_distributions.csv"
    (folder / name).rename(folder / "scores" / name)
    entries = build("koniq10k", tmp_path).manifest.entries
    assert entries[0].image == "KonIQ-10k/koniq10k_1024x768/1024x768/10004473376.jpg"


LIVEC_IMAGES = [("t1.bmp", 63.963406174124174), ("100.bmp", 25.335306406685238), ("1164.bmp", 72.75387092778396)]


def test_livec_in_the_official_layout(tmp_path: Path) -> None:
    raw_trees.livec(tmp_path, LIVEC_IMAGES)
    result = build("livec", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry("ChallengeDB_release/Images/trainingImages/t1.bmp", 63.963406174124174, None, 200),
        ManifestEntry("ChallengeDB_release/Images/100.bmp", 25.335306406685238, None, 200),
        ManifestEntry("ChallengeDB_release/Images/1164.bmp", 72.75387092778396, None, 200),
    ]
    assert result.manifest.domain_names == {}  # 200 is the whole set here, not "Animal"
    assert result.manifest.source.startswith("AllImages_release.mat, AllMOS_release.mat; ")


def test_livec_with_some_scene_labels_leaves_the_others_without_id(tmp_path: Path) -> None:
    raw_trees.livec(tmp_path, LIVEC_IMAGES, folder="LIVEChallenge")
    result = build("LIVEW", tmp_path, scene_labels={"100.bmp": "Others", "t1.bmp": "Animal"})
    assert [(entry.scene, entry.domain_id) for entry in result.manifest.entries] == [
        ("Animal", 200),
        ("Others", 208),
        (None, None),
    ]
    assert result.manifest.dataset == "livec"
    assert result.manifest.domain_names[208] == "Others"
    assert result.manifest.validate(tmp_path) == []


def test_bid(tmp_path: Path) -> None:
    raw_trees.bid(tmp_path, [(1, 4.516640224615385), (3, 1.30018912), (590, 2.15618492)])
    result = build("bid", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry("BID/DatabaseImage0001.JPG", 4.516640224615385, None, 400),
        ManifestEntry("BID/DatabaseImage0003.JPG", 1.30018912, None, 400),
        ManifestEntry("BID/DatabaseImage0590.JPG", 2.15618492, None, 400),
    ]
    assert result.manifest.score == ScoreInfo("MOS", (0.0, 5.0), True)
    labeled = build("rbid", tmp_path, scene_labels={"DatabaseImage0003.JPG": "Others"})
    assert labeled.manifest.entries[1] == ManifestEntry("BID/DatabaseImage0003.JPG", 1.30018912, "Others", 408)


def test_bid_with_a_row_that_has_no_number(tmp_path: Path) -> None:
    raw_trees.bid(tmp_path, [(1, 4.5)])
    raw_trees.write_xlsx(tmp_path / "BID/DatabaseGrades.xlsx", [["Image", "Grade"], ["one", 4.5]])
    with pytest.raises(ValueError, match="row 2: expected an image number in the first column, got 'one'"):
        build("bid", tmp_path)


@pytest.mark.parametrize("sorted_in_sets", [True, False], ids=["archive", "published"])
def test_cid2013(tmp_path: Path, sorted_in_sets: bool) -> None:
    images = [("IS_I_C01_D01", 3.3436430335190703), ("IS_VI_C08_D14", -4.25)]
    raw_trees.cid2013(tmp_path, images, sorted_in_sets=sorted_in_sets)
    result = build("cid2013", tmp_path)
    folders = ("CID2013/IS1/co1", "CID2013/IS6/co8") if sorted_in_sets else ("CID2013", "CID2013")
    assert result.manifest.entries == [
        ManifestEntry(f"{folders[0]}/IS_I_C01_D01.jpg", 3.3436430335190703, None, 450),
        ManifestEntry(f"{folders[1]}/IS_VI_C08_D14.jpg", -4.25, None, 450),
    ]
    assert result.manifest.score.higher_is_better
    assert result.manifest.source == "CID2013 data - version 12112014.xlsx"
