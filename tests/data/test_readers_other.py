"""Readers of aesthetics, portraits, generated and night-time images: EVA, PARA, PIQ23, AGIQA-3K, NNID, AVA."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import raw_trees
from sind_hf.data.manifests.manifest import ManifestEntry, ScoreInfo
from sind_hf.data.readers import LabelFileError, build

EVA_IMAGES = [("71", "5", [4, 5, 6]), ("132", "3", [7, 8]), ("957560", "1", []), ("8", "6", [0, 10, 10])]


def test_eva(tmp_path: Path) -> None:
    raw_trees.eva(tmp_path, EVA_IMAGES)
    result = build("eva", tmp_path)
    folder = "EVA/eva-dataset-master/images/EVA_category/EVA_category"
    assert result.manifest.entries == [
        ManifestEntry(f"{folder}/5/71.jpg", 5.0, "still life", 1105),
        ManifestEntry(f"{folder}/3/132.jpg", 7.5, "human", 1103),
        ManifestEntry(f"{folder}/6/8.jpg", 20 / 3, "other", 1106),
    ]
    assert result.complete  # an image without votes belongs to nobody's set
    assert "images without votes, left out: 1" in result.notes
    assert result.manifest.score.range == (0.0, 10.0)
    assert result.manifest.domain_names[1102] == "architectures and city scenes"
    assert result.manifest.source == "votes_filtered.csv, image_content_category.csv"


@pytest.mark.parametrize(
    ("folder", "root", "start"),
    [
        ("EVA/eva-dataset-master", "EVA", "EVA/eva-dataset-master/images"),
        ("EVA/eva-dataset-master", "EVA/eva-dataset-master", "eva-dataset-master/images"),
        ("eva-dataset", ".", "eva-dataset/images"),
        ("eva", ".", "eva/images"),
    ],
)
def test_eva_roots(tmp_path: Path, folder: str, root: str, start: str) -> None:
    raw_trees.eva(tmp_path, EVA_IMAGES, folder=folder)
    result = build("eva", tmp_path / root)
    assert result.manifest.entries[0].image == f"{start}/EVA_category/EVA_category/5/71.jpg"
    assert (result.image_root / result.manifest.entries[0].image).is_file()


def test_eva_with_an_unknown_category(tmp_path: Path) -> None:
    raw_trees.eva(tmp_path, [("71", "7", [4])])
    with pytest.raises(LabelFileError, match="image 71 has category '7', expected a number from 1 to 6"):
        build("eva", tmp_path)


PARA_ROWS = [
    {
        "sessionId": "session1",
        "imageName": "iaa_pub1_.jpg",
        "semantic": "portrait",
        "aestheticScore_mean": 3.25,
        "qualityScore_mean": 4.5,
    },
    {
        "sessionId": "session2",
        "imageName": "iaa_pub1_.jpg",
        "semantic": "animal",
        "aestheticScore_mean": 2.125,
        "qualityScore_mean": 1.5,
    },
    {
        "sessionId": "session2",
        "imageName": "iaa_pub72_.jpg",
        "semantic": "scene",
        "aestheticScore_mean": 1.0,
        "qualityScore_mean": 5.0,
    },
]


def write_para(root: Path, *tables: tuple[str, slice]) -> None:
    for name, part in tables:
        raw_trees.giaa(root / "PARA/annotation" / name, PARA_ROWS[part])
    raw_trees.write_images(root / "PARA/imgs", [f"{row['sessionId']}/{row['imageName']}" for row in PARA_ROWS])


def test_para_aesthetics(tmp_path: Path) -> None:
    write_para(tmp_path, ("PARA-GiaaAll.csv", slice(None)))
    result = build("para", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry("PARA/imgs/session1/iaa_pub1_.jpg", 3.25, "portrait", 1201),
        ManifestEntry("PARA/imgs/session2/iaa_pub1_.jpg", 2.125, "animal", 1200),
        ManifestEntry("PARA/imgs/session2/iaa_pub72_.jpg", 1.0, "scene", 1202),
    ]
    assert result.manifest.domain_names == {1200: "animal", 1201: "portrait", 1202: "scene"}
    assert result.manifest.score.range == (1.0, 5.0)
    assert "the label files name 3 images, the complete set has 31,220" in result.notes


def test_para_quality_on_request(tmp_path: Path) -> None:
    write_para(tmp_path, ("PARA-GiaaAll.csv", slice(None)))
    result = build("para", tmp_path, score="quality")
    assert [entry.score for entry in result.manifest.entries] == [4.5, 1.5, 5.0]
    assert result.manifest.score == ScoreInfo("mean quality score", (1.0, 5.0), True)
    with pytest.raises(ValueError, match="option score must be aesthetic or quality, got 'beauty'"):
        build("para", tmp_path, score="beauty")


def test_para_from_the_two_official_parts(tmp_path: Path) -> None:
    write_para(tmp_path, ("PARA-GiaaTrain.csv", slice(1, None)), ("PARA-GiaaTest.csv", slice(1)))
    result = build("para", tmp_path)
    # The ids are those of all scenes, although no part holds them all.
    assert [(entry.score, entry.domain_id) for entry in result.manifest.entries] == [
        (2.125, 1200),
        (1.0, 1202),
        (3.25, 1201),
    ]
    (tmp_path / "PARA/annotation/PARA-GiaaTest.csv").unlink()
    with pytest.raises(LabelFileError, match="'annotation/PARA-GiaaTest.csv' .* not found"):
        build("para", tmp_path)


def test_scene_ids_do_not_depend_on_which_images_are_there(tmp_path: Path) -> None:
    write_para(tmp_path, ("PARA-GiaaAll.csv", slice(None)))
    (tmp_path / "PARA/imgs/session2/iaa_pub1_.jpg").unlink()  # the only "animal", which comes first
    assert [entry.domain_id for entry in build("para", tmp_path).manifest.entries] == [1201, 1202]


def test_piq23_windows_paths(tmp_path: Path) -> None:
    text = (
        "IMAGE PATH,JOD,JOD STD,SCENE\n"
        "Overall\\Indoor_Scene_0\\a.JPG,-0.75,0.1,Indoor_Scene_0\n"
        "Overall\\Night_Scene_49\\b.jpg,1.5,0.1,Night_Scene_49\n"
    )
    paths = ["PIQ23/Overall/Indoor_Scene_0/a.JPG", "PIQ23/Overall/Night_Scene_49/b.jpg"]
    raw_trees.plain(tmp_path, {"PIQ23/Scores_Overall.csv": text}, paths)
    result = build("piq23", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry(paths[0], -0.75, "Indoor_Scene_0", 0),
        ManifestEntry(paths[1], 1.5, "Night_Scene_49", 49),
    ]
    assert result.manifest.score == ScoreInfo("JOD", None, True)
    assert result.manifest.domain_names == {0: "Indoor_Scene_0", 49: "Night_Scene_49"}
    assert "scores are comparable only within a scene" in result.notes


def test_piq23_scene_without_number(tmp_path: Path) -> None:
    raw_trees.plain(tmp_path, {"PIQ23/Scores_Overall.csv": "IMAGE PATH,JOD,SCENE\na.jpg,1,Indoor\n"}, ["PIQ23/a.jpg"])
    with pytest.raises(LabelFileError, match="scene 'Indoor' of 'a.jpg' does not end in a number"):
        build("piq23", tmp_path)


@pytest.mark.parametrize("folder", ["images/", ""], ids=["images", "flat"])
def test_agiqa3k(tmp_path: Path, folder: str) -> None:
    text = (
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        'a_1.jpg,"a cat, on a mat",,,baroque style,3.5,0.1,4.0,0.1\n'
        "b_2.jpg,a dog,,,,0.25,0.1,4.0,0.1\n"
        "c_3.jpg,a fish,,,anime style,4.75,0.1,4.0,0.1\n"
    )
    paths = [f"AGIQA-3K/{folder}{name}" for name in ("a_1.jpg", "b_2.jpg", "c_3.jpg")]
    raw_trees.plain(tmp_path, {"AGIQA-3K/data.csv": text}, paths)
    result = build("agiqa3k", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry(paths[0], 3.5, "baroque style", 501),
        ManifestEntry(paths[1], 0.25, "other", 502),
        ManifestEntry(paths[2], 4.75, "anime style", 500),
    ]
    assert result.manifest.domain_names == {500: "anime style", 501: "baroque style", 502: "other"}


def test_nnid(tmp_path: Path) -> None:
    texts = {f"NNID/mos{size}_with_names.txt": f"0.{size}\tn{size}.png\n" for size in (512, 1024, 2048)}
    paths = ["NNID/sub512/n512.png", "NNID/sub1024/n1024.png", "NNID/Sub2048/n2048.png"]
    raw_trees.plain(tmp_path, texts, paths)
    result = build("nnid", tmp_path)
    assert result.manifest.entries == [
        ManifestEntry(paths[0], 0.512, "512", 1400),
        ManifestEntry(paths[1], 0.1024, "1024", 1401),
        ManifestEntry(paths[2], 0.2048, "2048", 1402),
    ]


def test_ava(tmp_path: Path) -> None:
    text = (
        "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n"
        "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396\n"
        "3 954184 0 0 0 0 0 0 0 0 0 0 0 0 1396\n"
        "4 954113 0 0 0 0 0 0 0 0 0 3 0 0 1396\n"
    )
    names = ["953619", "953958", "954184", "954113"]
    raw_trees.plain(
        tmp_path,
        {"AVA/data/AVA.txt": text, "AVA/data/tags.txt": "1 Abstract\n22 Nature\n"},
        [f"AVA/data/image/{name}.jpg" for name in names],
    )
    (tmp_path / "AVA/data/image/953958.jpg").unlink()
    (tmp_path / "AVA/data/image/953958.jpg").write_bytes(b"GIF89a")
    result = build("ava", tmp_path, verify=True)
    first = (2 * 1 + 3 * 5 + 4 * 17 + 5 * 38 + 6 * 36 + 7 * 15 + 8 * 6 + 9 * 5 + 10) / 124
    assert result.manifest.entries == [
        ManifestEntry("AVA/data/image/953619.jpg", first, None, 1300),
        ManifestEntry("AVA/data/image/954113.jpg", 10.0, None, 1300),
    ]
    assert [path for path, _ in result.unreadable] == ["AVA/data/image/953958.jpg", "AVA/data/image/954184.jpg"]
    assert not result.complete


def test_ava_with_a_cut_line(tmp_path: Path) -> None:
    raw_trees.plain(tmp_path, {"AVA_dataset/AVA.txt": "1 953619 0 1 5\n"}, ["AVA_dataset/images/953619.jpg"])
    with pytest.raises(LabelFileError, match="AVA.txt, line 1: expected an index, an image id and ten counts"):
        build("ava", tmp_path)
