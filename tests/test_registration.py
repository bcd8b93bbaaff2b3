"""Importing the package costs little, and the Auto classes of transformers know SIND from then on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KNOWN = """
from transformers import AutoConfig, AutoModel, AutoImageProcessor
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
import sind_hf
assert AutoConfig.for_model("sind", vision_config={"model_type": "resnet"}).view_size == 224
assert MODEL_MAPPING[sind_hf.SindConfig] is sind_hf.SindModel
assert type(AutoImageProcessor.from_pretrained(sind_hf.bundled_checkpoint())) is sind_hf.SindImageProcessor
assert PIPELINE_REGISTRY.check_task("image-quality-assessment")[1]["impl"] is sind_hf.SindPipeline
"""
FIRST_IMPORTS = (
    "import sind_hf",
    "import transformers, sind_hf",
    "import sind_hf.image_processing_sind",
    "import sind_hf.pipeline_sind",
    "import sind_hf, importlib.util; importlib.util.find_spec('transformers')",
)


# What transformers imports from elsewhere is imported once, for all children.
IN_CHILDREN = """
import os, sys
import huggingface_hub, PIL.Image, scipy.optimize, torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor
known, *firsts = sys.argv[1:]
for first in firsts:
    if not (child := os.fork()):
        exec(first + known)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, first
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_neither_torch_nor_transformers() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'PIL', 'datasets', 'huggingface_hub'}"
    assert run(f"import sind_hf, sys; print({heavy} & set(sys.modules))") == "set()\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_auto_classes_know_sind_whatever_is_imported_first() -> None:
    run(IN_CHILDREN, KNOWN, *FIRST_IMPORTS)


def test_the_watcher_registers_once_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With modules of the standard library in the place of transformers and of a file that imports it."""
    from sind_hf import registration

    registered: list[str] = []
    monkeypatch.setattr(registration, "_register", lambda: registered.append("sind"))
    monkeypatch.setattr(registration, "_WATCHED", frozenset({"this", "antigravity"}))
    watcher = registration._TransformersWatcher()
    spec = watcher.find_spec("this", None)
    assert spec is not None and spec.loader is not None and watcher.find_spec("json", None) is None
    assert registered == []  # looking for a module is not importing it
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])

    def outer(_: object) -> None:
        watcher._execute(lambda _: None, sys)
        assert registered == []  # the outer file is not complete yet

    watcher._execute(outer, sys)
    assert registered == ["sind"] and watcher not in sys.meta_path
    watcher._execute(lambda _: None, sys)
    assert registered == ["sind"]
