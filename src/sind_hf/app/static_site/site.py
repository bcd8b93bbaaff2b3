"""A folder of plain files that scores images in the browser: written for a checkpoint, pushed as a static Space."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import string
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sind_hf import __version__
from sind_hf.app.judge import Judge
from sind_hf.app.page import TITLE
from sind_hf.app.panels import caption, card_address, limits, links, page_facts
from sind_hf.app.static_site.runtime import PACKAGE, RUNTIMES, read_runtime
from sind_hf.app.uploads import MAX_BYTES, MAX_PIXELS, Example, example_images, small_copy
from sind_hf.configuration_sind import resolve_checkpoint
from sind_hf.files import atomic_folder
from sind_hf.hub.space import PushedSpace, push_space_folder, space_header
from sind_hf.modeling_sind import SindModel
from sind_hf.onnx.export import export_onnx, require_onnx
from sind_hf.onnx.model import OnnxSindModel

WEB = Path(__file__).with_name("web")
SHARED_FILES = ("panels.js", "panels.css")  # of the page with a server
MODEL_FILE = "model.onnx"
SETTINGS_FILE = "site.json"
SERVICE_WORKER = "service-worker.js"
NOT_SERVED = ("README.md", SERVICE_WORKER)
MAX_IMAGES = 200  # at once: their previews are held in memory
EXAMPLE_SIDE = 1024
SMALLEST_HALVED = 256  # numbers; smaller tensors (biases, constants of shapes) gain nothing in float16
LARGE_MODEL = 16 * 10**6  # bytes; a visitor on a phone waits for more than that
# Shares of the score range (of 1 where none is declared): what float16 weights, and another runtime, may change.
HALF_TOLERANCE = 0.001
CHECK_TOLERANCE = 0.005
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "img-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
)

_README = """---
{header}---

# {title}

This folder is a web page that says how good photographs look to a SIND model (higher is better). The model runs in
the visitor's browser: no image is uploaded, and no server is needed. Any host of plain files can serve it. On your own
machine: `python -m http.server --directory .`, then open the address that it prints.

Written by sind-hf {version}. `ort/` holds files of {runtime} (MIT license), `model.onnx` the model, which has its
own license{card}.
"""


@dataclass(frozen=True)
class Site:
    """A site that was written."""

    folder: Path
    size: int  # of all files, in bytes
    model_size: int  # of the model file, in bytes


def write_site(
    folder: str | os.PathLike[str],
    model: str | Judge,
    *,
    runtime: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    examples: str | os.PathLike[str] | None = None,
    views: Literal["center", "nine"] | None = None,
    title: str = TITLE,
    card: str | None = None,
) -> Site:
    """Write a site that scores images in the browser with one checkpoint.

    Args:
        folder: Folder to make. It may exist if it is empty. It appears whole or not at all.
        model: Folder, Hub repository or exported file (`.onnx`), or a `Judge`.
        runtime: Copy of the npm package onnxruntime-web, see `read_runtime`; default: npm fetches it.
        reference: Scores that percentiles refer to; default: those of the checkpoint, if it has any.
        examples: Folder of example images; default: see `example_images`.
        views: `"center"` or `"nine"`; default: the checkpoint's own.
        title: Heading of the page.
        card: Address of the model card, which the page links to; default: the page of a Hub repository.

    Raises:
        ValueError: When the folder is not empty, a package is missing, or the checkpoint, the runtime, the reference
            or an example cannot be used.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder for the site, or delete it.")
    require_onnx()
    model = model if isinstance(model, Judge) else str(resolve_checkpoint(model))
    repository = model if isinstance(model, str) and not Path(model).exists() else None
    card = card_address(model, card)
    judge = model if isinstance(model, Judge) else Judge.load(model, reference=reference, views=views, device="cpu")
    shown = example_images(examples)
    contents = read_runtime(runtime)
    with atomic_folder(folder) as site:
        shutil.copytree(WEB, site, dirs_exist_ok=True)
        for name in SHARED_FILES:
            shutil.copyfile(WEB.parent.parent / name, site / name)
        _write_runtime(site, contents)
        listed = _write_examples(site, shown)
        _write_model(site / MODEL_FILE, judge, shown)
        settings = _settings(site, judge, listed)
        (site / SETTINGS_FILE).write_text(json.dumps(settings, allow_nan=False), encoding="utf-8")
        _fill_page(site / "index.html", judge, title, card)
        _write_readme(site / "README.md", title, card, repository)
        _complete_service_worker(site)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Site(folder, sum(sizes), (folder / MODEL_FILE).stat().st_size)


def push_site(
    model: str,
    repo_id: str,
    *,
    runtime: str | os.PathLike[str] | None = None,
    title: str | None = None,
    card: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> PushedSpace:
    """Put the site of a model on the Hub as a static Space, as one commit: all of it, or nothing.

    `model`, `runtime`, `title` and `card` are those of `write_site`, the other arguments those of `push_space`.

    Raises:
        ValueError: When the model cannot be used, or the Hub refuses or cannot be reached; the message says what to
            do.
    """
    with tempfile.TemporaryDirectory() as temporary:
        site = write_site(Path(temporary) / "site", model, runtime=runtime, title=title or TITLE, card=card)
        return push_space_folder(
            site.folder,
            repo_id,
            model=model,
            sdk="static",
            private=private,
            revision=revision,
            message=message,
            token=token,
        )


def check_views(size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the two views, uint8 (1, 3, size, size), whose score the site states; `worker.js` makes the same ones."""
    channel, y, x = np.mgrid[1:4, :size, :size]
    first = (x * 3 + y * channel) % 256
    second = (((x >> 3) * 37 + (y >> 3) * 59) * channel) % 256
    return first[None].astype(np.uint8), second[None].astype(np.uint8)


def _write_runtime(site: Path, contents: Mapping[str, bytes]) -> None:
    (site / "ort").mkdir()
    for name, data in contents.items():
        target = site / _runtime_path(name)
        # Few static hosts compress WebAssembly: packed, it is a quarter of its size.
        target.write_bytes(gzip.compress(data, mtime=0) if target.suffix == ".gz" else data)


def _runtime_path(name: str) -> str:
    # Some hosts know `.js`, but not `.mjs`, as a script.
    return f"ort/{name.removesuffix('.mjs')}.js" if name.endswith(".mjs") else f"ort/{name}.gz"


def _write_examples(site: Path, examples: Sequence[Example]) -> list[dict[str, str]]:
    listed = []
    for number, example in enumerate(examples, start=1):
        file = f"examples/{number}.jpg"
        (site / "examples").mkdir(exist_ok=True)
        small_copy(example.image, EXAMPLE_SIDE).save(site / file, "JPEG", quality=95, subsampling=0)
        listed.append({"file": file, "name": example.name, "alt": example.alt})
    return listed


def _write_model(path: Path, judge: Judge, examples: Sequence[Example]) -> None:
    """Export the model, with float16 weights where its scores stay the same."""
    whole = path.with_name(f"whole-{path.name}")
    if isinstance(judge.model, SindModel):
        export_onnx(judge.model, judge.processor, whole)
    else:
        shutil.copyfile(judge.model.path, whole)
    halve_weights(whole, path)
    views = [check_views(judge.processor.size["height"])]
    views += [judge.processor.make_views(example.image, "center") for example in examples]
    whole_model, half_model = OnnxSindModel(whole), OnnxSindModel(path)
    changes = [abs(_quality(whole_model, pair) - _quality(half_model, pair)) for pair in views]
    if max(changes) > HALF_TOLERANCE * _span(judge):
        whole.replace(path)
    else:
        whole.unlink()


def halve_weights(source: Path, target: Path) -> None:
    """Write a copy of an ONNX model whose large weights are float16, each with a cast to float32 behind it.

    Runtimes do such casts once, when they load the file. Weights that float16 cannot hold stay as they are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        # NaN fails this comparison, too.
        if values.size >= SMALLEST_HALVED and np.abs(values).max() <= np.finfo(np.float16).max:
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _quality(model: OnnxSindModel, views: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> float:
    output: Any = model(torch.from_numpy(views[0]), torch.from_numpy(views[1]))
    return float(output.quality[0])


def _span(judge: Judge) -> float:
    declared = judge.model.config.score_range
    return 1.0 if declared is None else float(declared[1] - declared[0])


def _settings(site: Path, judge: Judge, examples: list[dict[str, str]]) -> dict[str, Any]:
    """Return what the page and its worker read: `site.json`."""
    config = judge.model.config
    return {
        **page_facts(judge),
        "view_size": config.view_size,
        "views": judge.views,
        "resize_backend": judge.processor.resize_backend,
        "score_scale": config.score_scale,
        "reference": [] if judge.reference is None else [round(score, 6) for score in judge.reference.scores],
        "limits": {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "images": MAX_IMAGES},
        "model": _file(site, MODEL_FILE),
        "runtime": {
            kind: {"module": f"./{_runtime_path(module)}", "binary": _file(site, _runtime_path(binary))}
            for kind, (module, binary) in RUNTIMES.items()
        },
        "check": {
            "quality": _quality(OnnxSindModel(site / MODEL_FILE), check_views(judge.processor.size["height"])),
            "tolerance": CHECK_TOLERANCE * _span(judge),
        },
        "examples": examples,
    }


def _file(site: Path, name: str) -> dict[str, Any]:
    return {"file": name, "bytes": (site / name).stat().st_size}


def _fill_page(path: Path, judge: Judge, title: str, card: str | None) -> None:
    about = f"Written by sind-hf {__version__}. The model runs with {PACKAGE.replace('@', ' ')} (MIT license)."
    page = string.Template(path.read_text(encoding="utf-8")).substitute(
        policy=escape(POLICY),
        title=escape(title),
        caption=f"{escape(caption(judge))} {links(card)}",
        description=escape("Says how good photographs look, in the browser: nothing is uploaded."),
        limits=limits(judge),
        about=escape(about),
    )
    path.write_text(page, encoding="utf-8")


def _write_readme(path: Path, title: str, card: str | None, repository: str | None) -> None:
    header = space_header(
        title,
        sdk="static",
        app_file="index.html",
        custom_headers={  # they allow threads
            "cross-origin-embedder-policy": "require-corp",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "cross-origin",
        },
        **({} if repository is None else {"models": [repository]}),
    )
    text = _README.format(
        header=header,
        title=title,
        version=__version__,
        runtime=PACKAGE.replace("@", " "),
        card="" if card is None else f": {card}",
    )
    path.write_text(text, encoding="utf-8")


def _complete_service_worker(site: Path) -> None:
    """List the files in the service worker; its text changes with every file, so that browsers see a new version."""
    paths = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*")) if path.is_file()}
    digest = hashlib.sha256(__version__.encode())
    for name, path in paths.items():
        digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    served = [name for name in paths if name not in NOT_SERVED]
    # The model and the runtime that a browser uses are kept when they are fetched.
    at_once = [name for name in served if name != MODEL_FILE and not name.startswith("ort/")]
    facts = {"version": digest.hexdigest()[:16], "policy": POLICY, "kept": at_once, "files": served}
    path = site / SERVICE_WORKER
    path.write_text(f"const SITE = {json.dumps(facts)};\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
