"""The folder of a Hugging Face Space that shows a model in the browser.

    write_space("space", "user/sind-resnet-koniq10k")

The Space carries its own copy of the package, so that it needs no index that has it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement

import sind_hf
from sind_hf.scoring.checkpoints import load_checkpoint

TITLE = "Photo quality with SIND"
# What the page was tested with; a Space builds itself from exactly these.
GRADIO_VERSION = "6.31.0"
PYTHON_VERSION = "3.11"
MODEL_FOLDER = "model"
# What scoring and the page read; no optimizer states, no pickles, no records with the paths of a machine.
MODEL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "reference_scores.csv",
)

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

Drop photographs into the page: it says how good each one looks to a SIND model (higher is better), without a reference
picture, and where in the picture that comes from; it compares two, and scores many at once into a CSV file. Pictures
are deleted as soon as they are scored.

The model is {model}; it has a licence of its own.

`app.py` starts the page, `sind_hf/` is a copy of the package sind-hf {version} (MIT licence, `LICENSE`). To run it on
your own machine: `pip install -r requirements.txt "gradio=={gradio}"`, then `python app.py`.
"""

_CPU_TORCH = """# torch for CPUs alone, a tenth of the size; on a Space with a GPU take this line out
--extra-index-url https://download.pytorch.org/whl/cpu
"""


def write_space(folder: str | os.PathLike[str], model: str, *, title: str | None = None) -> Path:
    """Write a Space that runs the web demo: app.py, requirements.txt, README.md, and a copy of the package.

    Args:
        folder: To make; it may be there if it is empty. It appears whole or not at all.
        model: Hub repository, which the Space loads when it is built, or a checkpoint folder, of which the Space gets
            a copy (weights, configuration and `reference_scores.csv`).
        title: Of the Space and heading of the page.

    Returns:
        The folder.

    Raises:
        ValueError: When the folder holds something, the model is neither a checkpoint nor a name of the Hub, or the
            package is not installed, so that its requirements are unknown.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there and not empty; choose another folder for the Space, or delete it.")
    local = Path(model).is_dir()
    if local:
        load_checkpoint(model, device="cpu")  # says what is wrong here, and not on the Space
    else:
        _check_name(model)
    title = " ".join((title or TITLE).split())
    requirements, licence = _of_package()
    shown = "/".join(Path(model).resolve().parts[-2:]) if local else model
    header = {
        "title": title,
        "emoji": "📷",
        "colorFrom": "blue",
        "colorTo": "red",
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": PYTHON_VERSION,
        "app_file": "app.py",
        "license": "mit",
        "tags": ["image-quality-assessment", "sind"],
        **({} if local else {"models": [model], "preload_from_hub": [model]}),
    }
    files = {
        "app.py": _APP.format(
            model=f'str(Path(__file__).with_name("{MODEL_FOLDER}"))' if local else repr(model),
            name=repr(shown),
            title=repr(title),
        ),
        "requirements.txt": _CPU_TORCH + "".join(f"{line}\n" for line in requirements),
        "README.md": _README.format(
            header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True),
            title=title,
            model=f"in `{MODEL_FOLDER}/`" if local else f"[{model}](https://huggingface.co/{model})",
            version=sind_hf.__version__,
            gradio=GRADIO_VERSION,
        ),
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "LICENSE": licence,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        space = Path(temporary) / "space"
        package = Path(sind_hf.__file__).parent
        shutil.copytree(package, space / "sind_hf", ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in files.items():
            (space / name).write_text(text, encoding="utf-8")
        if local:
            _copy_model(Path(model), space / MODEL_FOLDER)
        os.replace(space, folder)
    return folder


def _copy_model(source: Path, target: Path) -> None:
    target.mkdir()
    for pattern in MODEL_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, target / path.name)


def _check_name(model: str) -> None:
    try:
        validate_repo_id(model)
    except HFValidationError:
        known = False
    else:
        known = model.count("/") == 1
    if not known:
        raise ValueError(f"{model}: neither a checkpoint folder nor a Hub repository (user/name).")


def _of_package() -> tuple[list[str], str]:
    """Return what the package with its web demo needs, and its licence."""
    try:
        installed = distribution("sind-hf")
        licence = installed.read_text("licenses/LICENSE")
    except PackageNotFoundError:
        licence = None
    if licence is None:
        raise ValueError("sind-hf is not installed, so its requirements are unknown: pip install it.")
    lines = []
    for text in installed.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "app"}):
            requirement.marker = None
            lines.append(str(requirement))
    return lines, licence
