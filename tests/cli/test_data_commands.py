"""`sind-hf data …`, end to end on small trees: results, exit codes, and one line for every error."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
from PIL import Image

from helpers import raw_trees
from helpers.prepared_sets import make_set
from helpers.tiny_clip import save_tiny_clip
from sind_hf.cli import app
from sind_hf.data.manifests.catalog import SCENES
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.prepared.folder import PreparedFolder
from sind_hf.data.readers import build
from sind_hf.data.splits.library import read_folds
from sind_hf.data.splits.splits import k_folds

KONIQ = [(f"{number}.jpg", 40.0 + number) for number in range(10, 16)]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def data(run: Callable[..., tuple[int, str, str]]) -> Run:
    """Run `sind-hf data …`."""
    return lambda *arguments: Outcome(*run("data", *arguments))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path, Manifest]:
    """(manifest file, image root, manifest): ten images of three scenes."""
    manifest = make_set(tmp_path / "images")
    return manifest.save(tmp_path / "study.json"), tmp_path / "images", manifest


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


def commands() -> dict[str, typer.core.TyperCommand]:
    group = typer.main.get_command(app).commands["data"]  # type: ignore[attr-defined]
    return dict(group.commands)


def test_every_command_shows_an_example_of_itself() -> None:
    assert list(commands()) == ["build", "import", "validate", "stats", "split", "label-scenes", "prepare"]
    for name, command in commands().items():
        assert f"Example: [bold]sind-hf data {name} " in (command.help or "")


class TestBuild:
    def test_all_is_there(self, tmp_path: Path, data: Run) -> None:
        raw_trees.koniq10k(tmp_path, KONIQ)
        outcome = data("build", "koniq10k", "--root", tmp_path, "--output", tmp_path / "out", "--verify")
        assert outcome.code == 0
        assert Manifest.load(tmp_path / "out/koniq10k/all.json") == build("koniq10k", tmp_path).manifest
        assert "koniq10k: 6 images, 0 left out; image root" in outcome.out
        assert "left out: " not in outcome.err

    def test_some_is_missing_or_damaged(self, tmp_path: Path, data: Run) -> None:
        raw_trees.koniq10k(tmp_path, KONIQ)
        (tmp_path / "koniq10k/1024x768/12.jpg").unlink()
        (tmp_path / "koniq10k/1024x768/13.jpg").unlink()
        (tmp_path / "koniq10k/1024x768/13.jpg").write_bytes(b"x")
        output = tmp_path / "koniq.json"
        outcome = data("build", "KonIQ", "--root", tmp_path / "koniq10k", "--output", output, "--verify")
        assert outcome.code == 1
        first, second = outcome.err.splitlines()
        assert first == "left out: koniq10k/1024x768/12.jpg: missing"
        assert second.startswith("left out: koniq10k/1024x768/13.jpg: the image cannot be decoded")
        assert [entry.image[-6:] for entry in Manifest.load(output).entries] == [
            "10.jpg",
            "11.jpg",
            "14.jpg",
            "15.jpg",
        ]

    def test_nothing_to_read(self, tmp_path: Path, data: Run) -> None:
        output = tmp_path / "out"
        assert_refused(data("build", "koniq10k", "--root", tmp_path, "-o", output), "koniq10k: label file")
        assert_refused(data("build", "koniq10k", "--root", tmp_path / "no", "-o", output), "is not a folder")
        assert_refused(data("build", "koniq9k", "--root", tmp_path, "-o", output), "did you mean 'koniq10k'?")
        raw_trees.koniq10k(tmp_path, KONIQ)
        shutil.rmtree(tmp_path / "koniq10k/1024x768")
        assert_refused(data("build", "koniq10k", "--root", tmp_path, "-o", output), "none of the 6 images")
        assert not output.exists()

    def test_an_old_manifest_survives_a_failure(self, tmp_path: Path, data: Run) -> None:
        output = tmp_path / "koniq.json"
        raw_trees.koniq10k(tmp_path, KONIQ)
        assert data("build", "koniq10k", "--root", tmp_path, "-o", output).code == 0
        before = output.read_bytes()
        (tmp_path / "koniq10k/koniq10k_scores_and_distributions.csv").write_text("no,header\n")
        assert_refused(data("build", "koniq10k", "--root", tmp_path, "-o", output), "no column")
        assert output.read_bytes() == before

    def test_everything_that_is_there(self, tmp_path: Path, data: Run) -> None:
        raw_trees.koniq10k(tmp_path, KONIQ)
        raw_trees.bid(tmp_path, [(1, 4.5)])
        arguments = ("build", "all", "--root", tmp_path, "--output", tmp_path / "out")
        outcome = data(*arguments)
        assert outcome.code == 0
        assert sorted(path.parent.name for path in (tmp_path / "out").rglob("all.json")) == ["bid", "koniq10k"]
        assert f"not in {tmp_path}: spaq, livec, " in outcome.err
        (tmp_path / "BID/DatabaseGrades.xlsx").write_bytes(b"no zip")
        outcome = data(*arguments)
        assert outcome.code == 1
        assert "left out: " in outcome.err and "DatabaseGrades.xlsx: not a readable .xlsx file" in outcome.err
        assert_refused(data(*arguments[:-1], tmp_path / "one.json"), "--output must be a folder")
        (tmp_path / "empty").mkdir()
        outcome = data("build", "all", "--root", tmp_path / "empty", "--output", tmp_path / "none")
        assert (outcome.code, (tmp_path / "none").exists()) == (2, False)

    def test_options_of_a_reader(self, tmp_path: Path, data: Run) -> None:
        row = {"sessionId": "session1", "imageName": "a.jpg", "semantic": "plant", "aestheticScore_mean": 2.0}
        raw_trees.giaa(tmp_path / "PARA/annotation/PARA-GiaaAll.csv", [{**row, "qualityScore_mean": 4.5}])
        raw_trees.write_images(tmp_path, ["PARA/imgs/session1/a.jpg"])
        arguments = ("build", "para", "--root", tmp_path, "--output", tmp_path / "p.json", "--option")
        assert data(*arguments, "score=quality").code == 0
        assert Manifest.load(tmp_path / "p.json").entries[0].score == 4.5
        assert_refused(data(*arguments, "quality"), "--option takes KEY=VALUE, got 'quality'")
        assert_refused(data(*arguments, "score=quality", "--option", "score=aesthetic"), "sets 'score' twice")
        assert_refused(data(*arguments, "colour=red"), "unknown option colour; its options are score")

    def test_clip_chooses_the_scenes(self, tmp_path: Path, clip: Path, data: Run) -> None:
        raw_trees.spaq(tmp_path, [("1.jpg", 20.0, ["Human", "Plant"]), ("2.jpg", 30.0, ["Animal"])])
        output = tmp_path / "spaq.json"
        assert data("build", "spaq", "--root", tmp_path, "-o", output, "--clip", clip).code == 0
        manifest = Manifest.load(output)
        assert manifest.entries[0].scene in ("Human", "Plant")
        assert manifest.entries[1].scene == "Animal"
        assert "1 from scene labels" in (manifest.source or "")
        assert_refused(data("build", "spaq", "--root", tmp_path, "-o", output, "--clip", tmp_path), "CLIP")

    def test_an_own_study(self, tmp_path: Path, data: Run) -> None:
        raw_trees.write_csv(
            tmp_path / "mine/scores.csv", [["file", "mos", "scene"], ["a.png", 3, "day"], ["b.png", "", 1]]
        )
        raw_trees.write_images(tmp_path / "mine", ["a.png", "b.png"])
        outcome = data(
            "build", "folder", "--root", tmp_path / "mine", "-o", tmp_path / "out", "--option", "score_range=1,5"
        )
        assert outcome.code == 1
        assert outcome.err == "left out: row 3: score is missing\n"
        manifest = Manifest.load(tmp_path / "out/mine/all.json")
        assert manifest.entries == [ManifestEntry("mine/a.png", 3.0, "day", 2000)]
        assert manifest.score == ScoreInfo("mos", (1.0, 5.0))


def test_the_script_is_the_command_by_its_published_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_trees.koniq10k(tmp_path, KONIQ)
    (tmp_path / "koniq10k/1024x768/12.jpg").unlink()
    script = Path(__file__).parents[2] / "scripts/data_json_generator.py"
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(script), "koniq10k", "--root", str(tmp_path), "--output", str(output)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "left out: koniq10k/1024x768/12.jpg: missing\n"
    assert len(Manifest.load(output / "koniq10k/all.json")) == 5


class TestImport:
    def test_a_table(self, tmp_path: Path, data: Run) -> None:
        raw_trees.write_csv(tmp_path / "scores.csv", [["photo", "opinion"], ["a.png", 3], ["b.png", 4]])
        raw_trees.write_images(tmp_path, ["a.png", "b.png"])
        arguments = ["import", tmp_path / "scores.csv", "-o", tmp_path / "study.json"]
        assert_refused(data(*arguments), "no column looks like the image; name it, of 'photo', 'opinion'")
        assert not (tmp_path / "study.json").exists()
        arguments += ["--column", "image=photo", "--column", "score=opinion"]
        outcome = data(*arguments)
        assert outcome.code == 0
        assert "columns: image from 'photo', score from 'opinion'" in outcome.out
        manifest = Manifest.load(tmp_path / "study.json")
        assert manifest.entries == [ManifestEntry("a.png", 3.0), ManifestEntry("b.png", 4.0)]
        assert manifest.score == ScoreInfo("opinion", None, True)
        assert data(*arguments, "--score-range", 1, 5, "--lower-is-better", "--dataset", "mine").code == 0
        manifest = Manifest.load(tmp_path / "study.json")
        assert (manifest.dataset, manifest.score) == ("mine", ScoreInfo("opinion", (1.0, 5.0), False))

    def test_bad_rows(self, tmp_path: Path, data: Run) -> None:
        raw_trees.write_csv(tmp_path / "scores.csv", [["image", "mos"], ["a.png", "?"], ["a.png", 4], ["gone.png", 1]])
        raw_trees.write_images(tmp_path, ["a.png"])
        outcome = data("import", tmp_path, "-o", tmp_path / "study.json")
        assert outcome.code == 1
        assert outcome.err.splitlines() == [
            "left out: row 2: score is '?', which is not a number",
            "left out: row 4: image 'gone.png': there is no such file in the image root",
        ]
        assert len(Manifest.load(tmp_path / "study.json")) == 1
        (tmp_path / "a.png").unlink()
        output = tmp_path / "none.json"
        assert_refused(data("import", tmp_path, "-o", output), "none of its 3 rows can be used")
        assert_refused(data("import", tmp_path / "no.csv", "-o", output), "there is no such file")
        assert not output.exists()

    def test_a_saved_dataset_with_its_images(self, tmp_path: Path, data: Run) -> None:
        from datasets import Dataset, Features, Value
        from datasets import Image as ImageFeature

        raw_trees.write_images(tmp_path / "in", ["a.png"])
        image = {"bytes": (tmp_path / "in/a.png").read_bytes(), "path": "a.png"}
        features = Features({"image": ImageFeature(), "mos": Value("float64")})
        Dataset.from_dict({"image": [image], "mos": [2.5]}, features=features).save_to_disk(tmp_path / "saved")
        arguments = ("import", tmp_path / "saved", "-o", tmp_path / "study.json")
        assert_refused(data(*arguments), "name a folder to write them to")
        assert data(*arguments, "--images-to", tmp_path / "images").code == 0
        assert Manifest.load(tmp_path / "study.json").validate(tmp_path / "images", verify=True) == []


class TestValidate:
    def test_a_valid_manifest(self, study: tuple[Path, Path, Manifest], data: Run) -> None:
        file, root, _ = study
        outcome = data("validate", file, "--image-root", root, "--verify")
        assert (outcome.code, outcome.err) == (0, "")
        assert "generated: 10 of 10 images decoded" in outcome.out
        assert "10 of 10 images well formed" in data("validate", file).out

    def test_missing_and_damaged_images_are_named(self, study: tuple[Path, Path, Manifest], data: Run) -> None:
        file, root, _ = study
        (root / "images/003.png").unlink()
        (root / "images/005.png").write_bytes(b"no image")
        outcome = data("validate", file, "--image-root", root)
        assert outcome.code == 1
        assert outcome.err.startswith("left out: entry 4 'images/003.png': there is no such file")
        assert outcome.err.count("\n") == 1
        outcome = data("validate", file, "--image-root", root, "--verify")
        assert outcome.code == 1
        assert "left out: entry 6 'images/005.png': the image cannot be decoded" in outcome.err
        assert "8 of 10 images decoded" in outcome.out

    def test_nothing_can_be_used(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, _, _ = study
        (tmp_path / "empty").mkdir()
        assert_refused(data("validate", file, "--image-root", tmp_path / "empty"), "no image can be used", "000.png")
        assert_refused(data("validate", file, "--image-root", tmp_path / "no"), "is not a folder")
        assert_refused(data("validate", file, "--verify"), "--image-root")
        assert_refused(data("validate", tmp_path / "no.json"), "there is no such file")

    def test_what_the_catalog_contradicts(self, tmp_path: Path, data: Run) -> None:
        entries = [ManifestEntry(f"BID/{number}.jpg", 9.0, "Animal", 400) for number in range(3)]
        file = Manifest("bid", entries, ScoreInfo("MOS", (0.0, 5.0)), {400: "Animal"}).save(tmp_path / "bid.json")
        outcome = data("validate", file)
        assert outcome.code == 1
        assert "problem: 3 scores outside 0 to 5, the range of BID" in outcome.out
        assert "note: 3 of 586 images" in outcome.out

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"not JSON",
            b"[1, 2]",
            b'{"files": 3}',
            b'{"schema_version": 1, "dataset": "x", "files": []}',
            b'{"schema_version": 99, "dataset": "x", "files": [{"image": "a.jpg", "score": 1}]}',
            b'{"files": [{"image": "../../etc/passwd", "score": 1}]}',
            b'{"files": [{"image": "/etc/passwd", "score": 1}]}',
            b'{"files": [{"image": "a.jpg", "score": NaN}]}',
            b'{"files": [{"image": "a.jpg", "score": "\\u001b[2J"}]}',
            b'{"files": [{"image": "a\\nb.jpg", "score": 1}]}',
            b'{"files": [{"image": "[red]a.jpg", "score": 1e999}]}',
            b'{"files": [{"image": "\\ud800.jpg", "score": 1}]}',
            b'{"files": [{"image": "a.jpg", "score": 1}, {"image": "a.jpg", "score": 2}]}',
            b'{"files": ' + b"[" * 100_000,
            b'{"files": [{"image": "a.jpg", "score": ' + b"9" * 10_000 + b"}]}",
            b"\xff\xfe{\x00}\x00",
            b'{"files": [{"image": "\xff", "score": 1}]}',
            b'{"files": [' + b",".join(b'{"image": %d}' % number for number in range(5000)) + b"]}",
        ],
    )
    def test_hostile_files_are_refused_in_one_line(self, tmp_path: Path, data: Run, content: bytes) -> None:
        file = tmp_path / "hostile.json"
        file.write_bytes(content)
        outcome = data("validate", file)
        assert_refused(outcome, "hostile.json")
        assert len(outcome.err) < 1000
        assert "\x1b[2J" not in outcome.err
        assert "Traceback" not in outcome.err

    def test_links_out_of_the_image_root(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, root, _ = study
        outside = tmp_path / "outside.png"
        (root / "images/001.png").rename(outside)
        os.symlink(outside, root / "images/001.png")
        outcome = data("validate", file, "--image-root", root)
        assert outcome.code == 1
        assert "'images/001.png': a symbolic link leads out of the image root" in outcome.err
        assert data("validate", file, "--image-root", root, "--follow-links", "--verify").code == 0

    def test_no_command_reads_through_a_link_that_leads_out(
        self, study: tuple[Path, Path, Manifest], clip: Path, tmp_path: Path, data: Run
    ) -> None:
        """A link to a file, and a link to a folder; both lead to readable images, so only the link is at fault."""
        file, root, manifest = study
        (tmp_path / "outside").mkdir()
        (root / "images/001.png").rename(tmp_path / "outside/001.png")
        (root / "images/001.png").symlink_to(tmp_path / "outside/001.png")
        (root / "linked").symlink_to(tmp_path / "outside")
        entries = [*manifest.entries[:2], replace(manifest.entries[0], image="linked/001.png")]
        file = replace(manifest, entries=entries).save(tmp_path / "links.json")
        table = tmp_path / "scores.csv"
        raw_trees.write_csv(table, [["image", "mos"], *([entry.image, entry.score] for entry in entries)])
        images = ("--image-root", root)
        for name, arguments in {
            "prepare": ("prepare", file, *images, "--view-size", 56, "-o", tmp_path / "prepared"),
            "label": ("label-scenes", file, *images, "--clip", clip, "-o", tmp_path / "labels.json"),
            "import": ("import", table, *images, "-o", tmp_path / "imported.json"),
        }.items():
            outcome = data(*arguments)
            assert outcome.code == 1, name
            assert outcome.err.count("leads out of the image root; allow it with --follow-links") == 2, outcome
            assert data(*arguments, "--follow-links").code == 0, name
        assert len(PreparedFolder(tmp_path / "prepared").dataset()) == 3


def test_stats(study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
    file, _, manifest = study
    outcome = data("stats", file, "--plot", tmp_path / "plots/study.png")
    assert outcome.code == 0
    assert "generated  10 images  MOS, 1 to 5, higher is better" in outcome.out
    for scene in ("day", "night", "indoor"):
        count = sum(entry.scene == scene for entry in manifest.entries)
        assert any(line.split()[:2] == [scene, str(count)] for line in outcome.out.splitlines())
    assert "generated is not a published dataset" in outcome.out
    with Image.open(tmp_path / "plots/study.png") as figure:
        assert figure.format == "PNG" and figure.width > 1000
    assert_refused(data("stats", tmp_path / "no.json"), "there is no such file")
    constant = Manifest("flat", [ManifestEntry(f"{number}.jpg", 1.0) for number in range(3)])
    assert_refused(data("stats", constant.save(tmp_path / "flat.json"), "--plot", tmp_path / "flat.png"), "no scene")
    assert not (tmp_path / "flat.png").exists()


class TestSplit:
    def test_leave_one_out(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, _, manifest = study
        outcome = data("split", file, "--protocol", "leave-one-out", "--output", tmp_path / "out")
        assert outcome.code == 0
        assert "6 manifests written" in outcome.out
        folds = read_folds(tmp_path / "out", "leave-one-out", "generated")
        assert [fold.name for fold in folds] == ["test_for_0_day", "test_for_1_indoor", "test_for_2_night"]
        for fold in folds:
            assert {entry.scene for entry in fold.test.entries} == {fold.name.split("_")[-1]}
            assert len(fold.train) + len(fold.test) == len(manifest)
            assert f"{fold.name} " in outcome.out

    @pytest.mark.parametrize(("protocol", "count"), [("random-split", 3), ("k-folds", 3), ("cross-set", 1)])
    def test_drawn_splits(
        self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run, protocol: str, count: int
    ) -> None:
        file, _, manifest = study
        arguments = ("split", file, "--protocol", protocol, "--splits", 3)
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            assert data(*arguments, "--output", tmp_path / name, "--seed", seed).code == 0
        parent = {"random-split": "random_split", "k-folds": "k_folds", "cross-set": "for_cross_set"}[protocol]
        assert [path.name for path in (tmp_path / "a").iterdir()] == [parent]
        first, again, other = (read_folds(tmp_path / name, protocol, "generated") for name in "abc")
        assert first == again != other
        assert len(first) == count
        for fold in first:
            sides = [side for side in (fold.train, fold.validation, fold.test) if side is not None]
            images = [entry.image for side in sides for entry in side.entries]
            assert sorted(images) == sorted(entry.image for entry in manifest.entries)
            assert not {entry.scene for entry in fold.train.entries} & {entry.scene for entry in fold.test.entries}
        if protocol == "k-folds":
            assert len({entry.image for fold in first for entry in fold.test.entries}) == len(manifest)

    def test_scenes_are_mixed_only_on_request_or_by_protocol(
        self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run
    ) -> None:
        file, _, manifest = study
        arguments = ("--protocol", "k-folds", "--splits", 2, "--output")
        tested = 3
        for folder, source, options, shared in (
            ("kept", file, (), 0),
            ("mixed", file, ("--mix-scenes",), tested),
            ("published", replace(manifest, dataset="spaq").save(tmp_path / "spaq.json"), (), tested),
        ):
            outcome = data("split", source, *arguments, tmp_path / folder, *options)
            assert outcome.code == 0
            assert f"{shared or 'none'} of 3 test scenes also in train" in outcome.out.splitlines(), outcome
        # The published protocols draw what they drew before.
        folds = read_folds(tmp_path / "published", "k-folds", "spaq")
        assert [fold.test.entries for fold in folds] == [
            fold.test.entries for fold in k_folds(Manifest.load(tmp_path / "spaq.json"), 2)
        ]
        without = replace(manifest, entries=[replace(entry, scene=None) for entry in manifest.entries])
        outcome = data("split", without.save(tmp_path / "none.json"), *arguments, tmp_path / "none")
        assert "the images have no scenes; `sind-hf data label-scenes` gives them some" in outcome.out

    def test_published_lists(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, _, manifest = study
        names = [entry.image.removeprefix("images/") for entry in manifest.entries]
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists/MyTrain.csv").write_text("image\n" + "\n".join(names[:6]))
        (tmp_path / "lists/my_test.json").write_text(json.dumps([{"image": name} for name in names[6:9]]))
        (tmp_path / "lists/notes.txt").write_text("what these are")
        for protocol, lists in (
            ("official", [tmp_path / "lists"]),
            ("cross-set", [tmp_path / "lists/MyTrain.csv", tmp_path / "lists/my_test.json"]),
        ):
            output = tmp_path / protocol
            named = [argument for path in lists for argument in ("--lists", path)]
            outcome = data("split", file, "--protocol", protocol, "-o", output, *named)
            assert outcome.code == 0
            (fold,) = read_folds(output, "cross-set", "generated")
            assert [entry.image for entry in fold.train.entries] == [f"images/{name}" for name in names[:6]]
            assert [entry.image for entry in fold.test.entries] == [f"images/{name}" for name in names[6:9]]
            assert outcome.out.splitlines()[1].split() == ["generated", "6", "0", "3", "1"]

    def test_lists_of_liqe(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, _, manifest = study
        for number in (1, 2):
            for index, side in enumerate(("train", "val", "test")):
                lines = [f"{entry.image}\t3.0\tnone\tday\tinvalid\tinvalid" for entry in manifest.entries[index::3]]
                raw_trees.write_lines(tmp_path / f"liqe/{number}/set_{side}_clip.txt", lines)
        outcome = data("split", file, "--protocol", "random-split", "-o", tmp_path / "o", "--lists", tmp_path / "liqe")
        assert outcome.code == 0
        folds = read_folds(tmp_path / "o", "random-split", "generated")
        assert [len(fold.train) for fold in folds] == [4, 4]
        assert [entry.image for entry in folds[1].test.entries] == [entry.image for entry in manifest.entries[2::3]]

    def test_wrong_use(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, _, _ = study
        for name in ("a_train.txt", "b_train.txt", "list.txt", "train_test.txt"):
            (tmp_path / name).write_text("000.png\n")

        def run(protocol: str, *lists: str) -> Outcome:
            named = [argument for name in lists for argument in ("--lists", tmp_path / name)]
            return data("split", file, "--protocol", protocol, "-o", tmp_path / "out", *named)

        assert_refused(run("official"), "needs a train and a test list")
        assert_refused(run("official", "a_train.txt"), "needs a train and a test list")
        assert_refused(run("cross-set", "a_train.txt", "b_train.txt"), "several train lists")
        assert_refused(run("cross-set", "list.txt"), "list.txt: the name does not tell a train list")
        assert_refused(run("cross-set", "train_test.txt"), "train_test.txt: the name does not tell a train list")
        assert_refused(run("cross-set", "gone_test.txt"), "does not exist")
        assert_refused(run("leave-one-out", "a_train.txt"), "uses no lists")
        assert_refused(run("random-split", "a_train.txt", "b_train.txt"), "one folder of LIQE's lists")
        assert_refused(
            data("split", file, "--protocol", "k-folds", "--splits", 50, "-o", tmp_path / "out"), "--mix-scenes"
        )
        assert data("split", file, "--protocol", "leave-two-out", "-o", tmp_path / "out").code == 2
        assert not (tmp_path / "out").exists()


class TestLabelScenes:
    def test_zero_shot(self, study: tuple[Path, Path, Manifest], clip: Path, tmp_path: Path, data: Run) -> None:
        file, root, manifest = study
        arguments = ["label-scenes", file, "--image-root", root, "--clip", clip, "-o", tmp_path / "new.json"]
        arguments += ["--cache", tmp_path / "cache.jsonl", "--batch-size", 4]
        outcome = data(*arguments)
        assert outcome.code == 0
        labeled = Manifest.load(tmp_path / "new.json")
        assert [entry.image for entry in labeled.entries] == [entry.image for entry in manifest.entries]
        assert {entry.scene for entry in labeled.entries} <= set(SCENES)
        counts = {scene: sum(entry.scene == scene for entry in labeled.entries) for scene in SCENES}
        rows = [line.split() for line in outcome.out.splitlines()[1:10]]
        assert {" ".join(row[:-1]): int(row[-1]) for row in rows} == counts
        assert len((tmp_path / "cache.jsonl").read_text().splitlines()) == 11
        assert data(*arguments, "--scene", "cat", "--scene", "dog").code == 2  # the cache is of other scenes

    def test_clusters(self, study: tuple[Path, Path, Manifest], clip: Path, tmp_path: Path, data: Run) -> None:
        pytest.importorskip("sklearn")
        file, root, _ = study
        arguments = ["label-scenes", file, "--image-root", root, "--clip", clip, "-o", tmp_path / "new.json"]
        assert data(*arguments, "--clusters", 2).code == 0
        labeled = Manifest.load(tmp_path / "new.json")
        assert set(labeled.domain_names.values()) == {"cluster 1", "cluster 2"}
        assert {entry.scene for entry in labeled.entries} == {"cluster 1", "cluster 2"}
        assert_refused(data(*arguments, "--clusters", 2, "--scene", "cat"), "leave --scene and --cache out")

    def test_images_that_cannot_be_read(
        self, study: tuple[Path, Path, Manifest], clip: Path, tmp_path: Path, data: Run
    ) -> None:
        file, root, _ = study
        output = tmp_path / "new.json"
        arguments = ["label-scenes", file, "--image-root", root, "--clip", clip, "-o", output]
        (root / "images/002.png").write_bytes(b"no image")
        outcome = data(*arguments)
        assert outcome.code == 1
        assert outcome.err.startswith("left out: images/002.png: not an image in a supported format")
        assert outcome.err.count("\n") == 1
        assert len(Manifest.load(output)) == 9
        output.unlink()
        shutil.rmtree(root / "images")
        assert_refused(data(*arguments), "no image could be read")
        assert_refused(data(*arguments[:5], tmp_path, *arguments[6:]), "CLIP")
        assert not output.exists()


class TestPrepare:
    def test_prepared_then_taken_over(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, root, manifest = study
        arguments = ["prepare", file, "--image-root", root, "-o", tmp_path / "prepared", "--view-size", 56]
        outcome = data(*arguments)
        assert outcome.code == 0
        announced, *others = outcome.err.splitlines()
        assert announced.startswith("preparing 10 images takes 0.00 GB in ")
        assert "GB are free" in announced and not others
        assert "generated: 10 images prepared (0 by an earlier run), 0 left out" in outcome.out
        folder = PreparedFolder(tmp_path / "prepared")
        assert folder.manifest == manifest
        assert folder.settings.view_size == 56
        assert "10 images prepared (10 by an earlier run)" in data(*arguments).out
        shard = tmp_path / "prepared/shard-00000.arrow"
        shard.write_bytes(shard.read_bytes()[:-50] + bytes(50))
        assert "10 images prepared (0 by an earlier run)" in data(*arguments, "--verify", "--workers", 1).out
        assert folder.damaged() == []

    def test_images_that_cannot_be_read(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, root, _ = study
        arguments = ["prepare", file, "--image-root", root, "-o", tmp_path / "prepared", "--view-size", 56]
        (root / "images/002.png").write_bytes(b"no image")
        outcome = data(*arguments)
        assert outcome.code == 1
        assert "left out: images/002.png: not an image in a supported format" in outcome.err
        assert "9 images prepared" in outcome.out
        shutil.rmtree(root / "images")
        outcome = data(*arguments)
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1] == "error: generated: none of the 10 images could be prepared"

    def test_wrong_use(self, study: tuple[Path, Path, Manifest], tmp_path: Path, data: Run) -> None:
        file, root, _ = study
        output = tmp_path / "prepared"
        assert_refused(data("prepare", file, "--image-root", tmp_path / "no", "-o", output), "is not a folder")
        assert_refused(data("prepare", file, "--image-root", root, "-o", output, "--view-size", 60), "multiple of 56")
        assert_refused(data("prepare", file, "--image-root", root, "-o", file), "is a file")
        assert not output.exists()


def test_views_of_prepared_photographs_are_those_of_the_files(shared: Path, tmp_path: Path, data: Run) -> None:
    """Bit for bit, on real photographs."""
    from sind_hf import SindImageProcessor, ViewDataset
    from sind_hf.data.prepared.folder import load_prepared
    from sind_hf.data.sampling import Draw

    photographs = sorted(path for path in (shared / "data/photos").rglob("*") if path.suffix in (".jpg", ".png"))
    if not photographs:
        pytest.skip(f"needs {shared / 'data/photos'}")
    entries = [
        ManifestEntry(path.relative_to(shared).as_posix(), float(index))
        for index, path in enumerate(photographs[:: max(1, len(photographs) // 6)])
    ]
    manifest = Manifest("photos", entries)
    file = manifest.save(tmp_path / "photos.json")
    assert data("prepare", file, "--image-root", shared, "-o", tmp_path / "prepared").code == 0
    processor = SindImageProcessor()
    direct = ViewDataset(manifest.to_dataset(shared), processor, "train", seed=3)
    prepared = ViewDataset(load_prepared(tmp_path / "prepared"), processor, "train", seed=3)
    for index in range(len(entries)):
        for draw in (Draw(index, 0, index), Draw(index, 1, 100 + index)):
            expected, found = direct[draw], prepared[draw]
            assert expected.keys() == found.keys()
            for key, value in expected.items():
                assert np.array_equal(np.asarray(value), np.asarray(found[key])), (entries[index].image, key)
