"""`sind-hf score` as a user meets it: exit codes, one-line errors, results."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf import Manifest, ManifestEntry, ScoreInfo, SindImageProcessor, score_images
from sind_hf.cli import terminal


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_scores_a_folder_in_order(run, tiny_checkpoint, image_files, tmp_path):
    folder = Path(image_files[0]).parent
    code, out, err = run("score", *image_files, "--model", tiny_checkpoint)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == image_files
    assert "5 images scored" in err and "0 to 100" in err

    code, out, _ = run("score", folder, "--model", tiny_checkpoint, "--output", tmp_path / "s.csv", "--workers", 1)
    assert code == 0 and out == ""
    written = {row["image"]: float(row["score"]) for row in rows_of(tmp_path / "s.csv")}
    assert set(image_files) <= set(written)


def test_bad_images_are_named_and_the_rest_is_scored(run, tiny_checkpoint, image_files, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.jpg").write_text("no image")
    (bad / "empty.png").write_bytes(b"")
    whole = bad / "whole.jpg"
    Image.effect_noise((300, 200), 60).convert("RGB").save(whole)
    (bad / "truncated.jpg").write_bytes(whole.read_bytes()[:2000])
    Image.new("RGB", (1, 1), (200, 30, 30)).save(bad / "pixel.png")
    stripes = np.tile(np.arange(20_000, dtype=np.uint8), (50, 1))
    Image.fromarray(stripes).save(bad / "panorama.png")
    output = tmp_path / "scores.jsonl"
    code, _, err = run(
        "score", bad, bad / "missing.png", image_files[0], "--model", tiny_checkpoint, "--output", output
    )
    assert code == 1
    rows = {Path(row["image"]).name: row for row in map(json.loads, output.read_text().splitlines())}
    assert {name for name, row in rows.items() if row["score"] is not None} == {
        "whole.jpg",
        "pixel.png",
        "panorama.png",
        "image0.png",
    }
    for name in ("text.jpg", "empty.png", "truncated.jpg", "missing.png"):
        lines = [line for line in err.splitlines() if name in line]
        assert len(lines) == 1 and lines[0].startswith("left out: ")
        assert rows[name]["error"] and rows[name]["score"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{empty}"], "no images"),
        (["{image}", "--output", "scores.txt"], "unknown format"),
        (["{image}", "--dtype", "float12"], "dtype is 'float12'"),
        (["{image}", "--device", "toaster"], "device 'toaster' cannot be used"),
    ],
)
def test_unusable_requests_end_with_one_line(run, tiny_checkpoint, image_files, tmp_path, arguments, expected):
    empty = tmp_path / "nothing"
    empty.mkdir()
    filled = [argument.format(empty=empty, image=image_files[0]) for argument in arguments]
    code, out, err = run("score", *filled, "--model", tiny_checkpoint)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and expected in err


def test_a_folder_that_is_not_a_checkpoint_is_named(run, image_files, tmp_path):
    code, _, err = run("score", image_files[0], "--model", tmp_path / "nowhere")
    assert code == 2 and err.strip() == f"error: {tmp_path / 'nowhere'}: there is no such checkpoint folder."
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit"}')
    code, _, err = run("score", image_files[0], "--model", tmp_path / "vit")
    assert code == 2 and "of 'vit', not of SIND" in err and len(err.strip().splitlines()) == 1


def test_debug_shows_the_traceback_and_escapes_names(run, tmp_path):
    code, _, err = run("score", "x.png", "--model", tmp_path / "no\x1b[2Jwhere", "--debug")
    assert code == 2 and err.startswith("Traceback") and "check_folder" in err
    assert err.splitlines()[-1].endswith("no\\x1b[2Jwhere: there is no such checkpoint folder.")
    assert all(character.isprintable() or character == "\n" for character in err)


def test_resume_scores_only_what_is_missing(run, interrupt, tiny_checkpoint, image_files, tmp_path):
    output, part = tmp_path / "scores.csv", tmp_path / "scores.csv.part"
    interrupt(tiny_checkpoint, image_files, output, 2)
    with part.open("a") as file:
        file.write('{"image": "' + image_files[2][:5])
    code, _, err = run("score", *image_files, "--model", tiny_checkpoint, "--output", output)
    assert code == 2 and "2 scores of an interrupted job" in err and part.exists()
    code, _, err = run("score", *image_files, "--model", tiny_checkpoint, "--output", output, "--resume")
    assert code == 0 and "3 images scored and 2 before the interruption" in err and not part.exists()
    found = rows_of(output)
    assert [row["image"] for row in found] == image_files and {row["error"] for row in found} == {""}
    scores = [float(row["score"]) for row in found]
    assert scores[:2] == [7.0, 7.0] and 7.0 not in scores[2:]


def test_summary_of_a_resumed_job_covers_all_images(run, interrupt, tiny_checkpoint, draw, tmp_path):
    files = [str(tmp_path / f"{number}.png") for number in range(12)]
    for number, file in enumerate(files):
        draw(60 + number, 50).save(file)
    interrupt(tiny_checkpoint, files, tmp_path / "s.csv", 8)
    code, _, err = run("score", *files, "--model", tiny_checkpoint, "--output", tmp_path / "s.csv", "--resume")
    assert code == 0 and "4 images scored and 8 before the interruption" in err
    assert "median 7.00" in err  # the eight of before


def listed(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines()]


def test_the_best_images_are_printed_and_written(run, tiny_checkpoint, image_files, tmp_path):
    code, out, _ = run("score", *image_files, "--model", tiny_checkpoint)
    score_of = {line.split()[1]: float(line.split()[0]) for line in out.splitlines()}
    best_first = sorted(score_of, key=score_of.__getitem__, reverse=True)
    threshold = score_of[best_first[2]] - 1e-3

    def score(*options):
        code, out, err = run("score", *image_files, tmp_path / "gone.png", "--model", tiny_checkpoint, *options)
        assert code == 1 and "gone.png: no such file" in err
        return out, err

    assert listed(score("--sort")[0]) == best_first
    assert listed(score("--top", 2)[0]) == best_first[:2]
    out, err = score("--min-score", threshold)
    assert listed(out) == [name for name in image_files if name in best_first[:3]]
    assert f"2 of 5 images score below {threshold:g}" in err
    out, _ = score("--sort", "--output", tmp_path / "s.csv")
    assert out == "" and [row["image"] for row in rows_of(tmp_path / "s.csv")] == [
        *(*best_first, str(tmp_path / "gone.png"))
    ]
    score("--top", 2, "--output", tmp_path / "s.csv")
    assert [row["image"] for row in rows_of(tmp_path / "s.csv")] == best_first[:2]


def test_good_images_are_copied_and_bad_ones_moved(run, interrupt, tiny_checkpoint, image_files, tmp_path):
    """After an interruption, too: images that were scored before count."""
    output = tmp_path / "out" / "s.csv"
    output.parent.mkdir()
    interrupt(tiny_checkpoint, image_files, output, 2)  # with scores of 7, the lowest
    options = ["--min-score", 10, "--copy-good", tmp_path / "good", "--move-bad", tmp_path / "bad"]
    base = ["score", *image_files, "--model", tiny_checkpoint, "--output", output, "--resume", *options]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "image1.png").write_text("of somebody else")
    code, _, err = run(*base, "--report", tmp_path / "out" / "r.html")
    assert code == 1 and "3 images copied to" in err and "1 image moved to" in err
    assert "image1.png is another file, which is not overwritten" in err
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == [f"image{n}.png" for n in (2, 3, 4)]
    assert (tmp_path / "bad" / "image1.png").read_text() == "of somebody else"
    assert [Path(file).exists() for file in image_files] == [False, True, True, True, True]
    assert [row["image"] for row in rows_of(output)] == image_files[2:]
    page = (tmp_path / "out" / "r.html").read_text()
    assert page.count("<figure>") == 5 and "2 below 10" in page


def test_a_report_that_cannot_be_written_is_refused_before_the_work(run, tiny_checkpoint, image_files, tmp_path):
    (tmp_path / "file").write_text("")
    report = tmp_path / "file" / "r.html"
    code, out, err = run("score", *image_files, "--model", tiny_checkpoint, "--report", report)
    assert (code, out) == (2, "") and f"{report}: cannot be written there" in err


def test_unread_formats_are_counted(run, tiny_checkpoint, image_files, tmp_path):
    for name in ("a.AVCI", "b.avci", "c.dng"):
        (tmp_path / name).write_bytes(b"")
    code, _, err = run("score", tmp_path / "*.[pAad]*", tmp_path, "--model", tiny_checkpoint)
    assert code == 1 and "formats that are not read: 2 AVC, 1 raw" in err and "5 images scored" in err


def test_the_bundled_checkpoint_says_what_the_median_beats(run, draw, tmp_path):
    for number in range(10):
        draw(80 + 10 * number, 60).save(tmp_path / f"{number}.png")
    code, out, err = run("score", tmp_path)
    assert code == 0 and len(out.splitlines()) == 10
    assert "10 images scored" in err and " images/s" in err
    assert len(re.findall(r"^median \d\.\d\d, better than \d+ % of the reference images$", err, re.M)) == 1


def test_warnings_of_torch_are_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        terminal.quiet_libraries()
        warnings.warn_explicit("too many workers", UserWarning, "dataloader.py", 1, "torch.utils.data.dataloader")
        warnings.warn_explicit("of the package", UserWarning, "job.py", 1, "sind_hf.scoring.job")
    assert [str(warning.message) for warning in shown] == ["of the package"]


def test_progress_has_a_rate_and_the_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with terminal.progress("scoring", "images") as update:
        for done in range(901, 1000):  # a resumed job begins where it was
            clock[0] += 0.5
            update(done, 10_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scoring: 920/10000, 2.0 images/s, 76 min left" and len(lines) == 4


def test_quality_maps_are_written(run, tiny_checkpoint, image_files, tmp_path):
    code, *_ = run("score", *image_files[:2], "--model", tiny_checkpoint, "--quality-maps", tmp_path / "maps")
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
    for flags, fast in ([], False), (["--fast-decode"], True), (["--fast-decode", "auto"], "auto"):
        code, _, err = run("score", tmp_path / "m.json", *flags, *base)
        assert code == 0 and "3 images scored" in err
        rows = rows_of(tmp_path / "s.csv")
        assert [row["image"] for row in rows] == [str(tmp_path / name) for name in names]
        processor = SindImageProcessor(fast_decode=fast)
        expected = [row.score for row in score_images(tiny_model, processor, [row["image"] for row in rows])]
        found[fast] = [float(row["score"]) for row in rows]
        assert found[fast] == pytest.approx(expected, rel=1e-6)
    assert found[True] == found["auto"] != found[False]
    code, _, err = run("score", tmp_path / "m.json", "--model", tiny_checkpoint)
    assert code == 2 and "--image-root" in err and len(err.strip().splitlines()) == 1


def test_a_part_of_full_decoding_is_not_continued_by_fast_decoding(
    run, interrupt, tiny_checkpoint, image_files, tmp_path
):
    output = tmp_path / "s.csv"
    interrupt(tiny_checkpoint, image_files, output, 1)
    arguments = ["score", *image_files, "--model", tiny_checkpoint, "--output", output, "--resume"]
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
