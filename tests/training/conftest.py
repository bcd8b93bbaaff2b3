from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from datasets import Dataset

from helpers.tiny_training import make_images


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads, and far slower when the machine has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 images, eight of each of three scenes: six batches of four an epoch."""
    return make_images(tmp_path_factory.mktemp("images"))
