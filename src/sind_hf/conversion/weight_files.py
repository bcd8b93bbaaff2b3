"""Read files of weights without running code that may be hidden in them, and unwrap their tensors."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sind_hf.files import reason

# Training scripts store the weights beside optimizer and epoch, under one of these names. The first one counts.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
# Prefixes that DistributedDataParallel, torch.compile and training frameworks add to every key.
PREFIXES = ("module.", "_orig_mod.", "model.")
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of a `.safetensors` file, or of a file of `torch.save` (`.pth`, `.pt`, `.bin`, …).

    Pickles are read with `weights_only=True`: nothing but tensors and plain containers is made from them, and no code
    in them runs.

    Args:
        path: The file. Weights may be in an entry with one of the names `WRAPPERS`, and every key may begin with one
            or several of `PREFIXES`; both are removed.

    Returns:
        Tensors by key, on the CPU, as they are stored.

    Raises:
        ValueError: If the file does not exist, is damaged, contains anything but tensors, or contains no weights.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file.")
    content = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _read_pickle(file)
    weights = dict(_unwrapped(file, content))
    others = [str(key) for key, value in weights.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"{file}: contains entries that are not tensors ({listed(others)}); save only a state dict.")
    while prefix := next((each for each in PREFIXES if all(key.startswith(each) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def listed(names: list[str], shown: int = 4) -> str:
    """Return the first few of many names and how many there are: `a, b, c, d … (17 in all)`."""
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} … ({len(names)} in all)"


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({reason(error)}).") from None


def _read_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unusual pickles raise an error anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FORBIDDEN.search(str(error))
        asked = f"it asks for {found[1]}" if found else "it is a pickle of other things"
        raise ValueError(
            f"{file}: refused, because it contains more than tensors ({asked}) or is damaged. Opening it could run "
            "code; if you trust it, save only its tensors: torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # damaged bytes can make an unpickler raise anything
        if "TorchScript" in str(error):
            raise ValueError(
                f"{file}: is a TorchScript archive, which is a program. If you trust it, save only its tensors: "
                "torch.save(torch.jit.load(FILE).state_dict(), OTHER)."
            ) from None
        raise ValueError(f"{file}: was not written by torch.save, or is damaged.") from None


def _unwrapped(file: Path, content: Any) -> Mapping[Any, Any]:
    # A state dict contains no mappings, so an entry with such a name that is a mapping wraps the weights.
    while isinstance(content, Mapping):
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ValueError(f"{file}: contains a {type(content).__name__} instead of named tensors.")
    if not any(isinstance(value, Tensor) for value in content.values()):
        places = f"neither directly nor in an entry {' or '.join(WRAPPERS)}"
        entries = listed([str(key) for key in content]) or "nothing"
        raise ValueError(f"{file}: contains no weights, {places}; it contains {entries}.")
    return content
