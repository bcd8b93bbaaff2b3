from __future__ import annotations

import ctypes
import gc
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before anything imports a Hub client: no test may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models gain nothing from threads, and lose much where other work shares the cores. Commands that tests start
# inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from sind_hf import SindConfig, SindImageProcessor, SindModel

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and published facts, which lies beside the repository and is never part of it."""
    named = os.environ.get("SIND_HF_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not folder.is_dir():
        if named:
            pytest.fail(f"SIND_HF_SHARED={named} is not a folder")
        pytest.skip(f"needs the real data in {folder}, or in the folder that SIND_HF_SHARED names")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values that this repository commits itself to; tests/golden/README.md says how each was made."""
    return ROOT / "tests" / "golden"


def drawn_image(width: int, height: int) -> Image.Image:
    """An image drawn by integer arithmetic alone, the same everywhere: gradients, stripes and fine texture."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    red = (x * 255 // max(width - 1, 1) + (x * x * 31 + y * y * 17) % 61) % 256
    green = (y * 255 // max(height - 1, 1)) ^ ((x // 5 + y // 3) % 2 * 96)
    blue = (x * 7 + y * 11 + x * y // 13) % 256
    return Image.fromarray(np.stack([red, green % 256, blue], axis=-1).astype(np.uint8))


@pytest.fixture(scope="session")
def draw() -> Any:
    return drawn_image


@pytest.fixture
def image_files(tmp_path: Path) -> list[str]:
    """Five images of different sizes on disk, named in order."""
    files = []
    for number, size in enumerate([(320, 240), (240, 320), (300, 300), (260, 420), (500, 230)]):
        files.append(str(tmp_path / f"image{number}.png"))
        drawn_image(*size).rotate(180 * (number % 2)).save(files[-1])
    return files


TINY_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 16,
}


@pytest.fixture
def tiny_clip_config() -> dict[str, Any]:
    return dict(TINY_CLIP)


@pytest.fixture
def tiny_resnet_config() -> dict[str, Any]:
    return {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[[], SindModel]:
    return tiny_sind


@pytest.fixture
def tiny_model() -> SindModel:
    """A fresh CLIP-backed model of a few thousand weights, whose scores differ clearly between images."""
    return tiny_sind()


def tiny_sind() -> SindModel:
    torch.manual_seed(0)
    model = SindModel(SindConfig(vision_config=dict(TINY_CLIP), initializer_range=1.0, score_range=[0, 100]))
    model.config.score_scale, model.config.score_shift = 10.0, 50.0
    return model.eval()


@pytest.fixture
def tiny_checkpoint(tiny_model: SindModel, tmp_path: Path) -> Path:
    """A folder with the tiny model and its processor, as `push_to_hub` would leave it."""
    folder = tmp_path / "checkpoint"
    tiny_model.save_pretrained(folder)
    SindImageProcessor().save_pretrained(folder)
    return folder


VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
EXPORTED: dict[str, dict[str, Any]] = {
    "clip": {**TINY_CLIP, **VIT},
    "resnet": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1]},
    "vit": {"model_type": "vit", **VIT},
    "dinov2": {"model_type": "dinov2", **VIT},
    "swin": {"model_type": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimpleNamespace]:
    """Tiny models on a scale of 0 to 100: `model`, its `folder`, and the `path` of its ONNX file.

    Each is exported once a session: tracing takes seconds whatever the size.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}, of the extra onnx")
    from sind_hf.onnx.export import export_onnx

    made: dict[tuple[str, str], SimpleNamespace] = {}

    def make(backbone: str, branch: Any = "patch") -> SimpleNamespace:
        if (backbone, branch) not in made:
            torch.manual_seed(7)
            config = SindConfig(
                vision_config=dict(EXPORTED[backbone]),
                local_branch=branch,
                initializer_range=1.0,
                score_scale=10.0,
                score_shift=50.0,
                score_range=[0, 100],
            )
            model, folder = SindModel(config).eval(), tmp_path_factory.mktemp(f"{backbone}_{branch}")
            model.save_pretrained(folder)
            SindImageProcessor().save_pretrained(folder)
            result = export_onnx(model, SindImageProcessor(), folder / "sind.onnx")
            made[backbone, branch] = SimpleNamespace(model=model, folder=folder, path=result.path, result=result)
        return made[backbone, branch]

    return make


@pytest.fixture
def small_files() -> Callable[[int], None]:
    """No file of this process may grow beyond a limit until the test ends, as on a disk that is full."""
    return lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def pytest_collection_finish() -> None:
    """Keep imported objects, half a million, out of garbage collections: every training asks for one."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, so that no process is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Lift the limit of `small_files` before pytest reports: its output may go to a file, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        return (yield)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], Path]]:
    """Makes folders read-only until the test ends, for the superuser too, whom modes do not stop otherwise."""
    folders: list[tuple[Path, int]] = []
    capabilities = (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and not hasattr(libc, "capset"):
        pytest.skip("the superuser writes everywhere, and this system knows no capabilities")

    def lock(folder: Path) -> Path:
        folders.append((folder, folder.stat().st_mode))
        folder.chmod(0o555)
        if os.geteuid() == 0:
            assert libc.capget(header, capabilities) == 0
            capabilities[0] &= ~0b10  # CAP_DAC_OVERRIDE
            assert libc.capset(header, capabilities) == 0
        return folder

    yield lock
    for folder, mode in reversed(folders):
        folder.chmod(mode)
    if folders and os.geteuid() == 0:
        capabilities[0] |= 0b10
        assert libc.capset(header, capabilities) == 0


@pytest.fixture(scope="session")
def free_ports() -> Iterator[int]:
    """Ports for servers, each given once.

    They lie below those that the system gives away itself, and every worker has a range of its own: a port that was
    found free by asking the system may be another's before a server has started on it.
    """
    first = 20_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return filter(_is_free, range(first, first + 1000))


@pytest.fixture
def free_port(free_ports: Iterator[int]) -> int:
    return next(free_ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
