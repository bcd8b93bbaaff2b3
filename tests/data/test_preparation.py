from __future__ import annotations

import os
import shutil
import signal
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from helpers.prepared_sets import VIEW_SIZE, make_set
from helpers.processes import process_of
from sind_hf.data.prepared import prepare as preparation
from sind_hf.data.prepared.folder import PreparedFolder, load_prepared
from sind_hf.data.prepared.prepare import estimate_bytes, prepare
from sind_hf.files import sole_use


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source", make_set(tmp_path / "source")


def run(manifest, root, folder, **options):
    return prepare(manifest, root, folder, **{"view_size": VIEW_SIZE, "shard_images": 3} | options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.endswith(".tmp")}


def made_again(folder, action) -> list[str]:
    """The shards that an action writes."""
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    for path in folder.glob("*.arrow"):
        os.utime(path, (1, 1))
    action()
    assert before
    return sorted(path.name for path in folder.glob("*.arrow") if path.stat().st_mtime_ns != 1_000_000_000)


def test_result_and_progress(source, tmp_path):
    root, manifest = source
    events = []
    result = run(
        manifest,
        root,
        tmp_path / "set",
        announce=lambda use: events.append((use.images, (tmp_path / "set").exists())),
        progress=lambda *done: events.append(done),
    )
    assert events == [(10, False), (0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]
    assert (result.done, result.reused, result.failures) == (10, 0, [])
    assert result.bytes == sum(path.stat().st_size for path in (tmp_path / "set").glob("*.arrow"))
    again = run(manifest, root, tmp_path / "set")
    assert (again.done, again.reused, again.bytes) == (10, 10, result.bytes)


def test_workers_write_the_same_bytes(source, tmp_path):
    root, manifest = source
    run(manifest, root, tmp_path / "one")
    done = []
    run(manifest, root, tmp_path / "many", workers=2, progress=lambda *counts: done.append(counts))
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert done[-1] == (10, 10)


def test_large_shards_are_written_in_several_batches(source, tmp_path, monkeypatch):
    root, manifest = source
    run(manifest, root, tmp_path / "one", shard_images=10)
    monkeypatch.setattr(preparation, "_BATCH_BYTES", 100_000)
    run(manifest, root, tmp_path / "many", shard_images=10)
    one, many = load_prepared(tmp_path / "one"), load_prepared(tmp_path / "many")
    assert len(many.data["local_picture"].chunks) > len(one.data["local_picture"].chunks) == 1
    assert many["local_picture"][:] == one["local_picture"][:]


def prepare_slowly(manifest, root, folder, workers):
    prepare_image = preparation._prepare_image

    def slowly(*args):
        time.sleep(0.2)
        return prepare_image(*args)

    preparation._prepare_image = slowly
    run(manifest, root, folder, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_is_continued(tmp_path, workers):
    root, folder = tmp_path / "source", tmp_path / "set"
    manifest = make_set(root, 20)
    process = process_of(prepare_slowly, manifest, root, folder, workers)
    process.start()
    deadline = time.monotonic() + 120
    # At least one shard is whole and another is being written.
    while not (list(folder.glob("shard-*.json")) and list(folder.glob(".*.tmp"))):
        assert process.is_alive(), "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    with pytest.raises(ValueError, match="not finished"):
        load_prepared(folder)
    with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=120):
        pass  # orphaned workers may hold it until they stop, at their next image
    result = run(manifest, root, folder)
    assert 0 < result.reused < 20
    assert result.done == 20
    run(manifest, root, tmp_path / "straight")
    assert contents(folder) == contents(tmp_path / "straight")
    deadline = time.monotonic() + 60
    while list(folder.glob(".*.tmp")):  # of orphaned workers
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_shards_of_changed_images_are_made_again(source, tmp_path):
    root, manifest = source
    folder = tmp_path / "set"
    run(manifest, root, folder)
    assert made_again(folder, lambda: run(manifest, root, folder)) == []
    Image.new("RGB", (50, 60), "red").save(root / manifest.entries[4].image)
    assert made_again(folder, lambda: run(manifest, root, folder)) == ["shard-00001.arrow"]
    assert PreparedFolder(folder).stale() == []
    # one image less at the end: the last shard goes, the others stay
    shorter = replace(manifest, entries=manifest.entries[:9])
    assert made_again(folder, lambda: run(shorter, root, folder)) == []
    assert not (folder / "shard-00003.arrow").exists()
    run(shorter, root, tmp_path / "straight")
    assert contents(folder) == contents(tmp_path / "straight")
    # other settings: everything
    assert len(made_again(folder, lambda: run(shorter, root, folder, resize_backend="pillow"))) == 3
    assert load_prepared(folder)["resize_backend"][0] == "pillow"


def test_damaged_shards_are_made_again(source, tmp_path):
    root, manifest = source
    folder = tmp_path / "set"
    run(manifest, root, folder)
    (folder / "shard-00000.arrow").write_bytes(b"")
    (folder / "shard-00001.json").write_text("{")
    (folder / "shard-00002.json").unlink()
    result = run(manifest, root, folder)
    assert result.reused == 1
    assert PreparedFolder(folder).damaged() == []
    shard = folder / "shard-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert made_again(folder, lambda: run(manifest, root, folder)) == []
    assert made_again(folder, lambda: run(manifest, root, folder, verify=True)) == ["shard-00001.arrow"]
    assert PreparedFolder(folder).damaged() == []


def test_images_that_cannot_be_read_are_named_and_left_out(source, tmp_path):
    root, manifest = source
    folder = tmp_path / "set"
    missing, damaged, text = (manifest.entries[index].image for index in (0, 3, 5))
    (root / missing).unlink()
    kept = (root / damaged).read_bytes()
    (root / damaged).write_bytes(kept[: len(kept) // 2])
    (root / text).write_text("not an image")
    result = run(manifest, root, folder, workers=1)
    assert result.done == 7
    reasons = dict(result.failures)
    assert list(reasons) == [missing, damaged, text]
    assert "No such file" in reasons[missing]
    assert "damaged" in reasons[damaged]
    assert reasons[text].startswith("not an image in a supported format")
    assert len(load_prepared(folder)) == 7
    # the missing one is known to be missing; what is there is tried again
    assert made_again(folder, lambda: run(manifest, root, folder)) == ["shard-00001.arrow"]
    (root / damaged).write_bytes(kept)
    assert [name for name, _ in run(manifest, root, folder).failures] == [missing, text]


def test_a_shard_without_any_image(source, tmp_path):
    root, manifest = source
    for entry in manifest.entries[3:6]:
        (root / entry.image).unlink()
    assert run(manifest, root, tmp_path / "set").done == 7
    assert len(load_prepared(tmp_path / "set")) == 7
    shutil.rmtree(root / "images")
    assert run(manifest, root, tmp_path / "none").done == 0
    with pytest.raises(ValueError, match="holds none of the images"):
        load_prepared(tmp_path / "none")


def test_not_enough_room(source, tmp_path, monkeypatch):
    root, manifest = source
    folder = tmp_path / "set"
    usage = namedtuple("usage", "total used free")
    images = [entry.image for entry in manifest.entries]
    needed = estimate_bytes(images, root, VIEW_SIZE)
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage(10**9, 0, needed - 1))
    announced = []
    with pytest.raises(
        ValueError, match=rf"Not enough room: preparing 10 images takes 0\.00 GB in {folder}, where 0\.00 GB are free"
    ):
        run(manifest, root, folder, announce=announced.append)
    assert announced[0].needed == needed > announced[0].free == needed - 1
    assert not folder.exists()
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage(10**9, 0, needed))
    assert run(manifest, root, folder).done == 10
    # what is there already needs no room
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage(10**9, 0, 0))
    assert run(manifest, root, folder).reused == 10
    # and what will be replaced makes room, so that a failed image can be repaired on a full disk
    Image.new("RGB", (50, 60), "red").save(root / images[0])
    assert run(manifest, root, folder).reused == 7


def test_a_disk_that_fills_up(source, tmp_path, monkeypatch):
    root, manifest = source

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "_prepare_image", full)
    with pytest.raises(ValueError, match=r"shard-00000.arrow: cannot be written \(the disk is full\); make room"):
        run(manifest, root, tmp_path / "set")


def test_a_disk_that_is_full_keeps_the_shards_that_are_whole(source, tmp_path, small_files):
    root, manifest = source
    folder = tmp_path / "set"
    run(replace(manifest, entries=manifest.entries[:3]), root, folder)
    small_files(20_000)
    with pytest.raises(ValueError, match=r"cannot be written \(File too large\); make room or check"):
        run(manifest, root, folder, workers=1)
    small_files(1 << 40)
    assert {"shard-00000.arrow", "shard-00000.json"} <= set(contents(folder)) and not list(folder.glob(".*.tmp"))
    assert run(manifest, root, folder).reused >= 3
    run(manifest, root, tmp_path / "straight")
    assert contents(folder) == contents(tmp_path / "straight")


def test_a_killed_worker_costs_its_shard_alone(source, tmp_path, monkeypatch):
    root, manifest = source
    prepare_image = preparation._prepare_image

    def die(root, image, *settings):
        if image == manifest.entries[9].image:
            time.sleep(0.5)  # until the shards before are whole
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare_image(root, image, *settings)

    monkeypatch.setattr(preparation, "_prepare_image", die)
    with pytest.raises(ValueError, match=r"has died \(Killed\), .*; run prepare again to continue\.$") as error:
        run(manifest, root, tmp_path / "set", workers=2)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not finished"):
        load_prepared(tmp_path / "set")
    assert run(manifest, root, tmp_path / "set", workers=2).reused > 0
    run(manifest, root, tmp_path / "straight")
    assert contents(tmp_path / "set") == contents(tmp_path / "straight")


def test_an_image_that_changes_while_it_is_prepared_is_noticed(source, tmp_path, monkeypatch):
    root, manifest = source
    changed = root / manifest.entries[4].image
    load = preparation.load_image

    def load_and_change(path):
        image = load(path)
        if path == changed:
            Image.new("RGB", (50, 60), "red").save(path)
        return image

    monkeypatch.setattr(preparation, "load_image", load_and_change)
    run(manifest, root, tmp_path / "set")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"1 image under .* changed after the preparation, first .*004"):
        load_prepared(tmp_path / "set")
    assert made_again(tmp_path / "set", lambda: run(manifest, root, tmp_path / "set")) == ["shard-00001.arrow"]


def test_a_folder_that_is_read_only_or_in_use(source, tmp_path, read_only):
    root, manifest = source
    with sole_use(tmp_path / "set"), pytest.raises(ValueError, match="set: another run is writing there"):
        run(manifest, root, tmp_path / "set")
    (tmp_path / "locked").mkdir()
    read_only(tmp_path / "locked")
    with pytest.raises(ValueError, match=r"locked/set: cannot be written there \(Permission denied\)"):
        run(manifest, root, tmp_path / "locked" / "set")


def test_the_estimate_is_close_and_sampled(source, tmp_path, monkeypatch):
    root, manifest = source
    images = [entry.image for entry in manifest.entries]
    actual = run(manifest, root, tmp_path / "set").bytes
    assert actual <= estimate_bytes(images, root, VIEW_SIZE) < actual + 6000 * len(images)
    monkeypatch.setattr(preparation, "_MEASURED_IMAGES", 10)
    assert estimate_bytes(images * 100, root, VIEW_SIZE) == pytest.approx(actual * 103, rel=0.1)
    assert estimate_bytes([], root) == 0


def test_wrong_use(source, tmp_path):
    root, manifest = source
    with pytest.raises(ValueError, match="the image root is not a folder"):
        run(manifest, tmp_path / "nowhere", tmp_path / "set")
    with pytest.raises(ValueError, match="view_size is 100: it must be a positive multiple of 56"):
        run(manifest, root, tmp_path / "set", view_size=100)
    with pytest.raises(ValueError, match="resize_backend is 'magic'"):
        run(manifest, root, tmp_path / "set", resize_backend="magic")
    with pytest.raises(ValueError, match="generated: files is empty"):
        run(replace(manifest, entries=[]), root, tmp_path / "set")
    with pytest.raises(ValueError, match=r"/etc/passwd"):
        run(replace(manifest, entries=[replace(manifest.entries[0], image="/etc/passwd")]), root, tmp_path / "set")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        run(manifest, root, tmp_path / "file")
    assert not (tmp_path / "set").exists()
    run(manifest, root, tmp_path / "set")
    with pytest.raises(ValueError, match="holds prepared data of generated, not of other"):
        run(replace(manifest, dataset="other"), root, tmp_path / "set")
