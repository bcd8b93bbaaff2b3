from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")  # before the module trains something for all of its tests
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads, and far slower when the machine has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
