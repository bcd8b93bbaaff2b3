"""The folder of a Space: what it holds, and that its app.py runs without the package installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from sind_hf.hub import space as making
from sind_hf.hub.space import write_space


def header_of(readme: Path) -> dict[str, object]:
    return yaml.safe_load(readme.read_text(encoding="utf-8").split("---\n")[1])


def test_a_space_of_a_hub_model(tmp_path):
    folder = write_space(tmp_path / "space", "user/sind-resnet", title='Sharp "or" not: {see}')
    assert {path.name for path in folder.iterdir()} == {
        "app.py",
        "requirements.txt",
        "README.md",
        ".gitattributes",
        "LICENSE",
        "sind_hf",
    }
    header = header_of(folder / "README.md")
    assert header["title"] == 'Sharp "or" not: {see}' and header["sdk"] == "gradio" and header["app_file"] == "app.py"
    assert header["models"] == ["user/sind-resnet"] and header["license"] == "mit"
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((folder / "app.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
    }
    assert constants == {"MODEL": "user/sind-resnet", "NAME": "user/sind-resnet", "TITLE": header["title"]}
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {Requirement(line).name: Requirement(line) for line in lines if not line.startswith(("#", "-"))}
    assert {"torch", "transformers", "gradio"} <= set(named) and "pytest" not in named
    assert header["sdk_version"] in named["gradio"].specifier
    assert (folder / "sind_hf/app/page.css").is_file() and not list(folder.rglob("__pycache__"))


def test_a_local_model_travels_without_what_scoring_does_not_read(tmp_path, tiny_checkpoint):
    (tiny_checkpoint / "training_args.bin").write_bytes(b"pickle")
    (tiny_checkpoint / "training_weights.safetensors").write_bytes(b"")
    (tiny_checkpoint / "reference_scores.csv").write_text("\ufeffimage;score;error\na.jpg;1;\nb.jpg;;gone\n")
    folder = write_space(tmp_path / "space", str(tiny_checkpoint))
    assert {path.name for path in (folder / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "reference_scores.csv",
    }
    assert (folder / "model/reference_scores.csv").read_text().split() == ["score", "1"]  # no names of images
    assert "models" not in header_of(folder / "README.md")
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.iterdir() if path.is_file())


def test_nothing_half_written_is_left(tmp_path, tiny_checkpoint, monkeypatch):
    def interrupted(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(making, "_copy_model", interrupted)
    with pytest.raises(ValueError, match=r"space: cannot be saved \(disk full\)"):
        write_space(tmp_path / "space", str(tiny_checkpoint))
    assert list(tmp_path.glob("*space*")) == list(tmp_path.glob(".*space*")) == []


def test_what_cannot_be_a_space_is_refused(tmp_path, tiny_checkpoint):
    for model in ("nowhere", "a/b/c", "user/with space"):
        with pytest.raises(ValueError, match="neither a checkpoint folder nor a Hub repository"):
            write_space(tmp_path / "space", model)
    with pytest.raises(ValueError, match="no config.json"):
        write_space(tmp_path / "space", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        write_space(tmp_path / "mine", str(tiny_checkpoint))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep" and not (tmp_path / "space").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio, of the extra `app`")
def test_the_app_of_a_space_serves_its_model(tmp_path, tiny_checkpoint, free_port):
    folder = write_space(tmp_path / "space", str(tiny_checkpoint), title="A page of mine")
    shutil.rmtree(tiny_checkpoint)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SPACE_ID")}
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env={**environment, "GRADIO_SERVER_PORT": str(free_port), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        shown = ""
        for _ in range(900):  # three minutes: a busy machine takes one to import everything
            try:
                shown = urllib.request.urlopen(f"http://127.0.0.1:{free_port}/", timeout=5).read().decode()
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                time.sleep(0.2)
        assert "A page of mine" in shown and "on a scale of 0 to 100; higher is better" in shown
    finally:
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
