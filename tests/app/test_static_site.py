"""The page of plain files: what it holds, for any checkpoint, and what is refused. No browser and no npm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sind_hf import app
from sind_hf.app.judge import Judge
from sind_hf.app.reference import ReferenceScores
from sind_hf.app.static_site import runtime, site, write_site
from sind_hf.app.static_site.runtime import read_runtime
from sind_hf.app.static_site.site import check_views, halve_weights
from sind_hf.onnx.model import OnnxSindModel

CONTENTS = {f"{kind}{suffix}": f"{kind}{suffix}".encode() * 100 for kind in ("a", "b") for suffix in (".mjs", ".wasm")}


@pytest.fixture(scope="module", autouse=True)
def small_runtime() -> Iterator[None]:
    """Files of a few bytes in place of onnxruntime-web's."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "HASHES", hashes)
        patch.setattr(site, "RUNTIMES", {"wasm": ("a.mjs", "a.wasm"), "webgpu": ("b.mjs", "b.wasm")})
        yield


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an npm package with these files."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "dist").mkdir()
    for name, data in CONTENTS.items():
        (folder / "dist" / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def judge(exported: Callable[..., SimpleNamespace]) -> Judge:
    """An exported model on the scale 0 to 100, with nine views and a reference of three scores."""
    model = OnnxSindModel(exported("resnet").path)
    return Judge(model, model.image_processor, name="a <b>", views="nine", reference=ReferenceScores([30, 10, 20]))


@pytest.fixture(scope="module")
def written(judge: Judge, package: Path, draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("site")
    (where / "examples").mkdir()
    draw(300, 240).save(where / "examples" / "harbor.png")
    made = write_site(
        where / "site",
        judge,
        runtime=package,
        examples=where / "examples",
        title="Sharp & good?",
        card="https://example.org/card?a=1&b=2",
    )
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert made.size == sum(path.stat().st_size for path in files)
    assert made.model_size == (made.folder / "model.onnx").stat().st_size
    return made.folder


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "site.json").read_text(encoding="utf-8"))


def worker_of(folder: Path) -> dict[str, Any]:
    first = (folder / "service-worker.js").read_text(encoding="utf-8").splitlines()[0]
    return json.loads(first.removeprefix("const SITE = ").removesuffix(";"))


def test_all_that_depends_on_the_checkpoint_is_a_setting(written: Path, judge: Judge) -> None:
    settings = settings_of(written)
    assert (settings["view_size"], settings["views"], settings["resize_backend"]) == (224, "nine", "torch")
    assert (settings["score_scale"], settings["score_range"], settings["digits"]) == (10.0, [0.0, 100.0], 1)
    assert settings["reference"] == [10.0, 20.0, 30.0] and settings["reference_size"] == 3
    assert [band["word"] for band in settings["bands"]] == ["poor", "fair", "good", "excellent"]
    assert [band["least"] for band in settings["bands"]] == [None, 25.0, 50.0, 75.0]
    model = OnnxSindModel(written / "model.onnx")
    first, second = (torch.from_numpy(view) for view in check_views(224))
    assert settings["check"]["quality"] == pytest.approx(float(model(first, second).quality[0]), abs=1e-4)
    assert settings["check"]["tolerance"] == 0.5


def test_every_file_that_is_named_exists_and_the_service_worker_knows_all(written: Path) -> None:
    settings, worker = settings_of(written), worker_of(written)
    named = [settings["model"], *(files["binary"] for files in settings["runtime"].values())]
    for file in named:
        assert (written / file["file"]).stat().st_size == file["bytes"]
    modules = [files["module"] for files in settings["runtime"].values()]
    for name in [*modules, *(example["file"] for example in settings["examples"])]:
        assert (written / name).is_file()
    with Image.open(written / settings["examples"][0]["file"]) as image:
        assert image.size == (300, 240)
    assert settings["examples"][0]["name"] == "harbor"
    for name in ("panels.js", "panels.css"):  # the same for both pages
        assert (written / name).read_bytes() == Path(app.__file__).with_name(name).read_bytes()
    files = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert set(worker["files"]) == files - {"README.md", "service-worker.js"}
    # The first visit fetches one of the runtimes and the model while it reports how far it is.
    assert set(worker["files"]) - set(worker["kept"]) == {name for name in files if name.startswith("ort/")} | {
        "model.onnx"
    }
    assert gzip.decompress((written / "ort/a.wasm.gz").read_bytes()) == CONTENTS["a.wasm"]
    assert (written / "ort/b.js").read_bytes() == CONTENTS["b.mjs"]


def test_the_page_can_reach_its_own_origin_alone(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].replace("&#x27;", "'") == worker_of(written)["policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in worker_of(written)["policy"].split(";"))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"
    assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    for inline in (r"<script(?![^>]* src=)", r"<style", r"\son\w+=", r"\sstyle="):
        assert not re.search(inline, page)
    texts = {
        path.name: path.read_text(encoding="utf-8") for path in written.iterdir() if path.suffix in (".js", ".css")
    }
    texts["index.html"] = re.sub('<a href="https[^"]*"', "", page)  # links load nothing by themselves
    assert [name for name, text in texts.items() if re.search(r"https?:(?!//www\.w3\.org/)", text)] == []


def test_words_are_escaped(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    assert "<title>Sharp &amp; good?</title>" in page and "<h1>Sharp &amp; good?</h1>" in page
    assert "model “a &lt;b&gt;”, on a scale of 0 to 100; higher is better." in page and "looks at nine pairs" in page
    assert 'href="https://example.org/card?a=1&amp;b=2"' in page and "$" not in page


def test_the_folder_is_a_static_space(written: Path) -> None:
    header = yaml.safe_load((written / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (header["sdk"], header["app_file"], header["title"]) == ("static", "index.html", "Sharp & good?")
    assert header["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"


def test_a_change_of_any_file_is_a_new_version(written: Path, judge: Judge, package: Path, tmp_path: Path) -> None:
    """Browsers compare the text of the service worker alone: without this, visitors would keep the old files."""
    (tmp_path / "none").mkdir()
    drawing = Image.effect_noise((40, 40), 20).convert("RGB")
    drawing.save(tmp_path / "none" / "harbor.png")
    versions = [
        worker_of(write_site(tmp_path / name, judge, runtime=package, examples=tmp_path / "none", title=title).folder)
        for name, title in (("one", "Title"), ("two", "Title"), ("three", "Another title"))
    ]
    assert versions[0] == versions[1] and versions[0]["version"] != versions[2]["version"]


def test_weights_are_stored_in_half_the_space_and_scores_stay(
    written: Path, exported: Callable[..., SimpleNamespace], image_files: list[str]
) -> None:
    whole = exported("resnet").path
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(written / "model.onnx").graph
    types = {each.data_type for each in graph.initializer if np.prod(each.dims) >= 256}
    assert types == {onnx.TensorProto.FLOAT16}
    before, after = OnnxSindModel(whole), OnnxSindModel(written / "model.onnx")
    assert after.config == before.config
    inputs = before.image_processor(image_files, do_rescale=False, do_normalize=False, return_tensors="pt")
    first, second = before(**inputs, output_quality_map=True), after(**inputs, output_quality_map=True)
    assert 0 < float((first.quality - second.quality).abs().max()) < 0.1
    np.testing.assert_allclose(first.quality_map, second.quality_map, rtol=0, atol=0.1)


def test_weights_that_would_move_scores_stay_whole(
    judge: Judge,
    package: Path,
    tmp_path: Path,
    exported: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(site, "HALF_TOLERANCE", 0.0)
    folder = write_site(tmp_path / "site", judge, runtime=package).folder
    assert (folder / "model.onnx").read_bytes() == exported("resnet").path.read_bytes()
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["model.onnx"]


def test_weights_beyond_float16_stay_whole(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = {"huge": np.full(400, 1e6, np.float32), "plain": np.linspace(-1, 1, 400, dtype=np.float32)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["huge", "plain"], ["sum"])],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [400])],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "whole.onnx")
    halve_weights(tmp_path / "whole.onnx", tmp_path / "half.onnx")
    types = {each.name: each.data_type for each in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert types == {"huge": onnx.TensorProto.FLOAT, "plain_half": onnx.TensorProto.FLOAT16}


def test_a_checkpoint_folder_is_exported(
    exported: Callable[..., SimpleNamespace], package: Path, tmp_path: Path
) -> None:
    case = exported("resnet", "none")
    folder = write_site(tmp_path / "site", str(case.folder), runtime=package).folder
    settings = settings_of(folder)
    assert settings["views"] == "center" and settings["reference"] == []
    assert OnnxSindModel(folder / "model.onnx").config.local_branch == "none"


def test_what_cannot_be_a_site_is_refused_and_nothing_is_left(judge: Judge, package: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="mine: exists and is not empty"):
        write_site(mine, judge, runtime=package)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="card 'javascript:alert' is not a web address"):
        write_site(tmp_path / "site", judge, runtime=package, card="javascript:alert")
    with pytest.raises(ValueError, match="no such checkpoint folder"):
        write_site(tmp_path / "site", str(tmp_path / "nowhere"), runtime=package, card="https://example.org")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# --- the npm package -------------------------------------------------------------------------------------------------


def archive(package: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        packed.add(package, "package")
        for name in ("../escape", "package/dist/other.wasm"):
            packed.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_the_package_is_read_as_a_folder_its_dist_or_an_archive(package: Path, tmp_path: Path) -> None:
    for source in (package, package / "dist", archive(package, tmp_path / "package.tgz")):
        assert read_runtime(source) == CONTENTS


def test_a_file_of_another_version_is_named(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    (copy / "dist" / "b.wasm").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"copy: b\.wasm is not the one of onnxruntime-web@.*its hash differs"):
        read_runtime(copy)
    (copy / "dist" / "b.wasm").unlink()
    with pytest.raises(ValueError, match=r"copy: has no b\.wasm: name the npm package"):
        read_runtime(copy)
    (tmp_path / "damaged.tgz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(ValueError, match=r"damaged\.tgz: cannot be read as an npm package"):
        read_runtime(tmp_path / "damaged.tgz")


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a script the only `npm`; what it fetches is kept in a new folder."""
    monkeypatch.setattr(runtime, "cached_assets_path", lambda *names: tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / "bin").mkdir()

    def put(script: str) -> None:
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "npm").chmod(0o755)

    program = tmp_path / "bin" / "npm"
    monkeypatch.setattr(runtime.shutil, "which", lambda name: str(program) if program.exists() else None)
    return put


def test_npm_fetches_the_package_once(npm: Callable[[str], None], package: Path, tmp_path: Path) -> None:
    archive(package, tmp_path / "served.tgz")
    name = f"onnxruntime-web-{runtime.VERSION}.tgz"
    npm(f'echo "$@" >> {tmp_path}/calls\nfor last; do :; done\ncp {tmp_path}/served.tgz "$last/{name}"')
    assert read_runtime() == read_runtime() == CONTENTS
    assert (tmp_path / "calls").read_text().startswith(f"pack onnxruntime-web@{runtime.VERSION} ")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [name]


def test_without_npm_or_network_the_message_says_what_to_do(npm: Callable[[str], None], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="npm, which fetches it, is missing: install Node.js, or give a copy .* --runtime"
    ):
        read_runtime()
    npm("echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(ValueError, match=r"npm could not fetch .*\(npm error code ENOTFOUND\): check the network, or"):
        read_runtime()
    assert list((tmp_path / "kept").iterdir()) == []


# --- looks -----------------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    parts = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_text_has_the_contrast_of_level_aa_on_both_grounds_light_and_dark(written: Path) -> None:
    css = (written / "panels.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", css))
    for theme in (0, 1):
        for text in ("text", "quiet", "accent", "poor", "fair", "good", "excellent"):
            for ground in ("ground", "raised"):
                shades = (luminance(colors[name].split(", ")[theme]) for name in (text, ground))
                dark, light = sorted(shades)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, theme)
