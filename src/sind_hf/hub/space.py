"""Hugging Face Spaces that show a model in the browser: as a folder, and on the Hub.

    write_space("space", "user/sind-resnet-koniq10k")
    push_space("runs/koniq", "user/photo-quality")

The Space carries its own copy of the package, so that no package index is needed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import HfApi
from packaging.requirements import Requirement

import sind_hf
from sind_hf.checkpoints import load_checkpoint
from sind_hf.data.importing.tables import read_table
from sind_hf.files import atomic_folder
from sind_hf.hub.model_card import is_repo_id
from sind_hf.hub.publish import commit_files, hub_api, list_files, one_line_errors, open_repository

TITLE = "Photo quality with SIND"
# Versions that the page was tested with; a Space is built with exactly these.
GRADIO_VERSION = "6.31.0"
PYTHON_VERSION = "3.11"
MODEL_FOLDER = "model"
PACKAGE_FOLDER = "sind_hf"
# Folders that a push replaces: those of this Space, and of a static one.
OUR_FOLDERS = (f"{PACKAGE_FOLDER}/", f"{MODEL_FOLDER}/", "ort/", "examples/")
# Files that scoring and the page read; no optimizer states, pickles, or records with the paths of a machine.
MODEL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "reference_scores.json",
)
REFERENCE_FILE = "reference_scores.csv"

_APP = '''"""Scores, compares and maps the quality of photographs in the browser."""

import os
from pathlib import Path

from sind_hf.app import build_app, launch_app

MODEL = {model}
NAME = {name}
TITLE = {title}

if __name__ == "__main__":
    launch_app(
        build_app(MODEL, name=NAME, title=TITLE),
        host="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1",
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
'''

_README = """---
{header}---

# {title}

Drop photographs into the page. It says how good each one looks to a SIND model (higher is better), and which parts of
the image raise or lower its score. It compares two images, and scores many at once into a CSV file. Images are deleted
as soon as they are scored.

The model is {model}; it has its own license.

`app.py` starts the page, and `sind_hf/` is a copy of the package sind-hf {version} (MIT license, `LICENSE`). To run it
on your own machine: `pip install -r requirements.txt "gradio=={gradio}"`, then `python app.py`.
"""

_CPU_TORCH = """# torch for CPUs alone, a tenth of the size; on a Space with a GPU take this line out
--extra-index-url https://download.pytorch.org/whl/cpu
"""


@dataclass(frozen=True)
class PushedSpace:
    """A Space on the Hub."""

    url: str  # address of its page, which works when the Hub has built it
    commit_url: str
    repo_id: str  # with the namespace
    files: tuple[str, ...]  # paths of the files that were pushed


def push_space(
    model: str,
    repo_id: str,
    *,
    title: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> PushedSpace:
    """Put the web demo of a model on the Hub as a Space, as one commit: all of it, or nothing.

    Files of an earlier push in the Space's folders of the package and the model are deleted; other files stay.

    Args:
        model: See `write_space`; a repository must exist.
        repo_id: Name of the Space, `user/name`, or `name` for the user of the token. It is made if it does not exist.
        title: See `write_space`.
        private: Whether to make a new Space private.
        revision: Branch to push to; it is made if it does not exist. Default: main, which the Hub shows.
        message: Message of the commit.
        token: Token of the Hub; default: that of `hf auth login`, or `HF_TOKEN`.

    Raises:
        ValueError: If the model cannot be used, or the Hub refuses or cannot be reached; the message says what to
            do. A model's folder is never changed.
    """
    api = hub_api(token)
    with tempfile.TemporaryDirectory() as folder:
        space = write_space(Path(folder) / "space", model, title=title)
        if not Path(model).is_dir():
            with one_line_errors(api, repo_id, Path(model)):
                _check_on_hub(api, model)
        return push_space_folder(
            space, repo_id, model=model, private=private, revision=revision, message=message, token=token
        )


def push_space_folder(
    space: Path,
    repo_id: str,
    *,
    model: str,
    sdk: Literal["gradio", "static"] = "gradio",
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> PushedSpace:
    """Put a folder on the Hub as a Space, as one commit, and delete files of an earlier push in `OUR_FOLDERS`.

    Args:
        space: Folder with the Space's files.
        repo_id: See `push_space`, also for the options that are not listed here.
        model: Model that the Space shows, for messages.
        sdk: Kind of a new Space; the README.md of an existing one decides its kind.

    Raises:
        ValueError: If the Hub refuses or cannot be reached; the message says what to do.
    """
    api = hub_api(token)
    with one_line_errors(api, repo_id, Path(model)):
        # `.gitattributes` is hidden, and the Hub makes one of its own for every repository.
        files = list_files(space)
        repo_id = open_repository(api, repo_id, repo_type="space", space_sdk=sdk, private=private, revision=revision)
        there = api.list_repo_files(repo_id, repo_type="space", revision=revision)
        stale = [name for name in there if name.startswith(OUR_FOLDERS) and name not in files]
        commit = commit_files(
            api, space, files, repo_id, repo_type="space", revision=revision, message=message, deleted=stale
        )
    return PushedSpace(f"{api.endpoint}/spaces/{repo_id}", commit.commit_url, repo_id, tuple(files))


def _check_on_hub(api: HfApi, model: str) -> None:
    """Check the repository of a model before the Space is built."""
    if not api.file_exists(model, "config.json"):
        raise ValueError(
            f"{model}: neither a folder here nor a model on the Hub: name the folder, or push the model first."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(api.hf_hub_download(model, "config.json", local_dir=folder))
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if kind != "sind":
        raise ValueError(f"{model}: is a checkpoint of {kind!r}, not of SIND; choose a SIND checkpoint.")


def write_space(folder: str | os.PathLike[str], model: str, *, title: str | None = None) -> Path:
    """Write a Space that runs the web demo: app.py, requirements.txt, README.md, and a copy of the package.

    Args:
        folder: Folder to make. It may exist if it is empty. It appears complete or not at all.
        model: Hub repository, which the Space loads when it is built, or a checkpoint folder, which is copied into the
            Space (weights, configuration and reference scores).
        title: Title of the Space and heading of the page.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder is not empty, the model is neither a checkpoint nor a Hub repository, or the
            package is not installed, so that its requirements are unknown.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder for the Space, or delete it.")
    local = Path(model).is_dir()
    if local:
        load_checkpoint(model, device="cpu")  # a broken checkpoint fails here, not on the Space
    elif model.count("/") != 1 or not is_repo_id(model):
        raise ValueError(f"{model}: neither a checkpoint folder nor a Hub repository (user/name).")
    title = " ".join((title or TITLE).split())
    requirements, license = _of_package()
    shown = "/".join(Path(model).resolve().parts[-2:]) if local else model
    header = space_header(
        title,
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        **({} if local else {"models": [model], "preload_from_hub": [model]}),
    )
    files = {
        "app.py": _APP.format(
            model=f'str(Path(__file__).with_name("{MODEL_FOLDER}"))' if local else repr(model),
            name=repr(shown),
            title=repr(title),
        ),
        "requirements.txt": _CPU_TORCH + "".join(f"{line}\n" for line in requirements),
        "README.md": _README.format(
            header=header,
            title=title,
            model=f"in `{MODEL_FOLDER}/`" if local else f"[{model}](https://huggingface.co/{model})",
            version=sind_hf.__version__,
            gradio=GRADIO_VERSION,
        ),
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "LICENSE": license,
    }
    with atomic_folder(folder) as space:
        package = Path(sind_hf.__file__).parent
        shutil.copytree(package, space / PACKAGE_FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in files.items():
            (space / name).write_text(text, encoding="utf-8")
        if local:
            _copy_model(Path(model), space / MODEL_FOLDER)
    return folder


def space_header(title: str, **fields: Any) -> str:
    """Return the YAML header of a Space's README.md."""
    looks = {"title": title, "emoji": "📷", "colorFrom": "blue", "colorTo": "red", "license": "mit"}
    header = {**looks, "tags": ["image-quality-assessment", "sind"], **fields}
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _copy_model(source: Path, target: Path) -> None:
    target.mkdir()
    for pattern in MODEL_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, target / path.name)
    if (source / REFERENCE_FILE).is_file():
        # The other columns hold the paths of somebody's images.
        scores = [row.get("score") for _, row in read_table(source / REFERENCE_FILE).rows if isinstance(row, dict)]
        with (target / REFERENCE_FILE).open("w", newline="", encoding="utf-8") as copy:
            csv.writer(copy).writerows([["score"], *([score] for score in scores if score)])


def _of_package() -> tuple[list[str], str]:
    """Return the requirements of the package with its web demo, and its license."""
    # A source folder on the path has its own metadata, without the license; the installation's come after.
    for installed in distributions(name="sind-hf"):
        license = installed.read_text("licenses/LICENSE")
        if license is not None:
            break
    else:
        raise ValueError("sind-hf is not installed, so its requirements are unknown: pip install it.")
    lines = []
    for text in installed.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "app"}):
            requirement.marker = None
            lines.append(str(requirement))
    return lines, license
