"""`sind-hf score` as a user meets it: exit codes, one-line errors, results."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf import Manifest, ManifestEntry, ScoreInfo, SindImageProcessor, cli, score_images
from sind_hf.cli import terminal


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_scores_a_folder_in_order(run, tiny_checkpoint, picture_files, tmp_path):
    folder = Path(picture_files[0]).parent
    code, out, err = run("score", *picture_files, "--model", tiny_checkpoint)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == picture_files
    assert "5 pictures scored" in err and "0 to 100" in err

    code, out, _ = run("score", folder, "--model", tiny_checkpoint, "--output", tmp_path / "s.csv", "--workers", 1)
    assert code == 0 and out == ""
    written = {row["image"]: float(row["score"]) for row in rows_of(tmp_path / "s.csv")}
    assert set(picture_files) <= set(written)


def test_bad_pictures_are_named_and_the_rest_is_scored(run, tiny_checkpoint, picture_files, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.jpg").write_text("no picture")
    (bad / "empty.png").write_bytes(b"")
    whole = bad / "whole.jpg"
    Image.effect_noise((300, 200), 60).convert("RGB").save(whole)
    (bad / "truncated.jpg").write_bytes(whole.read_bytes()[:2000])
    Image.new("RGB", (1, 1), (200, 30, 30)).save(bad / "pixel.png")
    stripes = np.tile(np.arange(20_000, dtype=np.uint8), (50, 1))
    Image.fromarray(stripes).save(bad / "panorama.png")
    output = tmp_path / "scores.jsonl"
    code, _, err = run(
        "score", bad, bad / "missing.png", picture_files[0], "--model", tiny_checkpoint, "--output", output
    )
    assert code == 1
    rows = {Path(row["image"]).name: row for row in map(json.loads, output.read_text().splitlines())}
    assert {name for name, row in rows.items() if row["score"] is not None} == {
        "whole.jpg",
        "pixel.png",
        "panorama.png",
        "picture0.png",
    }
    for name in ("text.jpg", "empty.png", "truncated.jpg", "missing.png"):
        lines = [line for line in err.splitlines() if name in line]
        assert len(lines) == 1 and lines[0].startswith("left out: ")
        assert rows[name]["error"] and rows[name]["score"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{empty}"], "no pictures"),
        (["{picture}", "--output", "scores.txt"], "unknown format"),
        (["{picture}", "--dtype", "float12"], "dtype is 'float12'"),
        (["{picture}", "--device", "toaster"], "device 'toaster' cannot be used"),
    ],
)
def test_unusable_requests_end_with_one_line(run, tiny_checkpoint, picture_files, tmp_path, arguments, expected):
    empty = tmp_path / "nothing"
    empty.mkdir()
    filled = [argument.format(empty=empty, picture=picture_files[0]) for argument in arguments]
    code, out, err = run("score", *filled, "--model", tiny_checkpoint)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err


def test_a_folder_that_is_no_checkpoint_is_named(run, picture_files, tmp_path):
    code, _, err = run("score", picture_files[0], "--model", tmp_path / "nowhere")
    assert code == 2 and err.strip() == f"error: {tmp_path / 'nowhere'}: there is no such checkpoint folder."
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit"}')
    code, _, err = run("score", picture_files[0], "--model", tmp_path / "vit")
    assert code == 2 and "of 'vit', not of SIND" in err and len(err.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["sind-hf", "score", "x.png", "--model", str(tmp_path / "nowhere"), "--debug"])
    with pytest.raises(ValueError, match="no such checkpoint folder"):
        cli.main()


def test_resume_scores_only_what_is_missing(run, interrupt, tiny_checkpoint, picture_files, tmp_path):
    output, part = tmp_path / "scores.csv", tmp_path / "scores.csv.part"
    interrupt(tiny_checkpoint, picture_files, output, 2)
    with part.open("a") as file:
        file.write('{"image": "' + picture_files[2][:5])
    code, _, err = run("score", *picture_files, "--model", tiny_checkpoint, "--output", output)
    assert code == 2 and "2 scores of an interrupted job" in err and part.exists()
    code, _, err = run("score", *picture_files, "--model", tiny_checkpoint, "--output", output, "--resume")
    assert code == 0 and "3 pictures scored" in err and not part.exists()
    found = rows_of(output)
    assert [row["image"] for row in found] == picture_files and {row["error"] for row in found} == {""}
    scores = [float(row["score"]) for row in found]
    assert scores[:2] == [7.0, 7.0] and 7.0 not in scores[2:]


def test_quality_maps_are_written(run, tiny_checkpoint, picture_files, tmp_path):
    code, *_ = run("score", *picture_files[:2], "--model", tiny_checkpoint, "--quality-maps", tmp_path / "maps")
    assert code == 0
    maps = sorted((tmp_path / "maps").iterdir())
    assert len(maps) == 2
    with Image.open(maps[0]) as image:
        values = np.array(json.loads(image.text["quality_map"]))
    assert values.shape == (7, 7) and np.ptp(values) > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["score"], "error: Missing argument 'paths'; see --help"),
        (["frobnicate"], "error: No such command 'frobnicate'; see --help"),
        (["score", "x.png", "--model", "m", "--views", "ten"], "'ten' is not one of 'center', 'nine'; see --help"),
        (["score", "x.png", "--modle", "m"], "No such option: --modle"),
    ],
)
def test_wrong_usage_is_one_line(run, arguments, expected):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err


def test_no_arguments_show_the_help(run):
    code, out, err = run()
    assert code == 2 and "score" in out + err and "demo" in out + err


def test_other_sources_and_fast_decoding(run, tiny_checkpoint, tiny_model, tmp_path, draw):
    names = [f"{number}.jpg" for number in range(3)]
    for number, name in enumerate(names):
        draw(3000 + 100 * number, 2800).save(tmp_path / name, quality=90)
    entries = [ManifestEntry(name, 1.0) for name in names]
    Manifest("study", entries, ScoreInfo("MOS", (0, 5))).save(tmp_path / "m.json")
    base = ["--model", tiny_checkpoint, "--output", tmp_path / "s.csv", "--image-root", tmp_path]
    found = {}
    for fast in (False, True):
        code, _, err = run("score", tmp_path / "m.json", *base, *(["--fast-decode"] if fast else []))
        assert code == 0 and "3 pictures scored" in err
        rows = rows_of(tmp_path / "s.csv")
        assert [row["image"] for row in rows] == [str(tmp_path / name) for name in names]
        processor = SindImageProcessor(fast_decode=fast)
        expected = [row.score for row in score_images(tiny_model, processor, [row["image"] for row in rows])]
        found[fast] = [float(row["score"]) for row in rows]
        assert found[fast] == pytest.approx(expected, rel=1e-6)
    assert found[True] != found[False]
    code, _, err = run("score", tmp_path / "m.json", "--model", tiny_checkpoint)
    assert code == 2 and "--image-root" in err and len(err.strip().splitlines()) == 1


def test_a_part_of_full_decoding_is_not_continued_by_fast_decoding(
    run, interrupt, tiny_checkpoint, picture_files, tmp_path
):
    output = tmp_path / "s.csv"
    interrupt(tiny_checkpoint, picture_files, output, 1)
    arguments = ["score", *picture_files, "--model", tiny_checkpoint, "--output", output, "--resume"]
    code, _, err = run(*arguments, "--fast-decode")
    assert code == 2 and "another preprocessor configuration" in err and (tmp_path / "s.csv.part").exists()
    code, *_ = run(*arguments)
    assert code == 0 and rows_of(output)[0]["score"] == "7.0"


def test_names_cannot_steer_the_terminal(run, tiny_checkpoint, draw, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ["\x1b]0;title\x07\x1b[2Ja.png", "b.png\n    4.9999  forged.png", "c\u202egnp.png", "d[red].png"]
    for name in names:
        draw(60, 50).save(folder / name)
    (folder / "e\x1b[31m\r.png").write_bytes(b"no image")
    (folder / "f\x9b31m.svg").write_bytes(b"")
    code, out, err = run("score", folder, "--model", tiny_checkpoint)
    assert code == 1 and len(out.splitlines()) == 4
    assert all(character.isprintable() or character == "\n" for character in out + err)
    assert "d[red].png" in out and "\\n    4.9999  forged.png" in out and "f\\x9b31m.svg: SVG images" in err
    code, *_ = run("score", folder, "--model", tiny_checkpoint, "--output", tmp_path / "s.csv")
    assert code == 1 and {f"{folder}/{name}" for name in names} <= {
        row["image"] for row in rows_of(tmp_path / "s.csv")
    }


def test_everything_that_is_shown_is_printable(capsys):
    hostile = "\x1b[2J[/x]\n" + "long" * 1000
    terminal.say(hostile)
    terminal.note(hostile)
    terminal.complain(hostile)
    terminal.show_table(hostile, ["", hostile], [[hostile, "1"]])
    with terminal.stage(hostile) as update:
        update(1, 2)
    with pytest.raises(SystemExit):
        terminal.fail(hostile)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "[/x]" in text and max(map(len, text.splitlines())) < 1100
