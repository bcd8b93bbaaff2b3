"""Load a checkpoint by its name, check that its files can be trusted, and score images in one call."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers.utils import logging

from sind_hf.configuration_sind import BUNDLED, resolve_checkpoint
from sind_hf.files import read_text, reason, shown
from sind_hf.fusion import fuse
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, printable
from sind_hf.modeling_sind import SindModel
from sind_hf.onnx.model import OnnxSindModel, ScoringModel, is_onnx

# Files of a Hub repository that scoring needs; nothing else is downloaded.
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
)
MOST_LABELS = 100_000  # transformers keeps a name for each
# Parameters that a configuration may declare beyond those in the weight files: a checkpoint that lacks a few weights
# is loaded, so that the message can name them.
SPARE_PARAMETERS = 10_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def score(
    images: Any, model: str = BUNDLED, *, views: str | None = None, batch_size: int = 8, fetch_urls: bool = False
) -> float | list[float]:
    """Score one image or several in one call.

    The checkpoint is loaded at the first call and kept for the next ones.

    Args:
        images: A path, PIL image, array or tensor; or several of them in a list, a dataset column or a generator.
        model: Checkpoint to use, see `load`.
        views: `"center"` or `"nine"` (nine times the work, steadier scores). Default: the checkpoint's own setting.
        batch_size: Images per forward pass.
        fetch_urls: Whether to download images that are given as http(s) addresses.

    Returns:
        The score of one image, or a list with the scores of several; higher is better.

    Raises:
        ValueError: If there is no such checkpoint, or an image cannot be read (`ImageError`).

    Example:
        >>> import sind_hf
        >>> from PIL import Image
        >>> isinstance(sind_hf.score(Image.new("RGB", (320, 240))), float)
        True
    """
    scorer = _load_once(model)
    stream = scorer.image_processor.each_image(images)
    first = list(islice(stream, 1))
    is_one = bool(first) and first[0] is images
    given = chain(first, stream)
    scores = scorer.score(given if fetch_urls else _without_urls(given), batch_size=batch_size, views=views)
    return scores[0] if is_one else scores


def _without_urls(images: Iterable[Any]) -> Iterator[Any]:
    for image in images:
        if isinstance(image, str) and image.lower().startswith(("http://", "https://")):
            raise ImageError(f"{printable(image)}: is a web address; pass fetch_urls=True to download it.")
        yield image


def load(name: str = BUNDLED, *, device: str | None = None, dtype: str = "float32") -> ScoringModel:
    """Load a model that scores images: `sind_hf.load().score(images)` and `.quality_map(images)`.

    A convolutional model is made faster and can no longer be trained or saved, see `sind_hf.fusion.fuse`. To train,
    use `SindModel.from_pretrained`.

    Args:
        name: `"bundled"` for the checkpoint inside the package, a folder, a Hub repository ID, or an exported `.onnx`
            file. The commands and configuration files take the same names.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` … Default: the first accelerator, else the CPU.
        dtype: Type of the backbone's weights: `"float32"`, `"bfloat16"` or `"float16"`.

    Returns:
        A `SindModel`, or an `OnnxSindModel` for an `.onnx` file, with its image processor as `image_processor`.

    Raises:
        ValueError: See `load_scorer`.

    Example:
        >>> import sind_hf
        >>> model = sind_hf.load(device="cpu")
        >>> model.config.score_range
        [1.0, 5.0]
    """
    return load_scorer(name, device=device, dtype=dtype)[0]


_load_once = lru_cache(maxsize=2)(load)


def load_checkpoint(
    path: str, *, device: str | None = None, dtype: str = "float32", fused: bool = False
) -> tuple[SindModel, SindImageProcessor]:
    """Load a SIND checkpoint and its image processor.

    A checkpoint is not trusted: no code in it is run, no pickle is read, nothing that its configuration names is
    fetched from elsewhere, and memory is taken only for weights that its files hold.

    Args:
        path: Folder, Hub repository ID, or `"bundled"`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` … Default: the first accelerator, else the CPU.
        dtype: Type of the backbone's weights: `"float32"`, `"bfloat16"` or `"float16"`. The head always computes in
            float32.
        fused: Whether the model only scores, so that BatchNorm may be folded away; see `fuse`.

    Raises:
        ValueError: If there is no such checkpoint, it is not one of SIND, or the device or dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: choose one of {', '.join(DTYPES)}.")
    path = str(resolve_checkpoint(path))
    check_folder(path)
    folder = path if Path(path).exists() else _download(path)
    try:
        with _without_progress_bars():
            loaded: Any = SindModel.from_pretrained(
                folder,
                local_files_only=True,
                dtype=DTYPES[dtype],
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                most_parameters=_stored_parameters(Path(folder)) + SPARE_PARAMETERS,
            )
        model, found = loaded
        processor = SindImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a hostile config.json can break its reader in any way
        raise ValueError(f"{path}: cannot load this checkpoint ({reason(error)}).") from error
    model.config._name_or_path = model.name_or_path = path
    model.image_processor = processor
    # What the files lack, or hold in another shape, was filled with random numbers.
    unfit = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if unfit:
        raise ValueError(
            f"{path}: {len(unfit)} weights are missing from this checkpoint or do not fit its config.json "
            f"({', '.join(unfit[:3])}{' …' if unfit[3:] else ''}): copy or train it again."
        )
    if fused:
        fuse(model)
    try:
        torch.nn.Module.to(model, device or default_device())
    except (RuntimeError, AssertionError) as error:
        what = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used ({what}); leave it out to choose one.") from None
    return model.eval(), processor


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for weights that are loaded in a moment."""
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _stored_parameters(folder: Path) -> int:
    """Count the parameters that the weight files of a checkpoint hold, from their headers alone."""
    count = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            for tensor in map(file.get_slice, file.keys()):
                packed = 2 if tensor.get_dtype() == "U8" else 1  # quantized weights: two of 4 bits in a byte
                count += packed * math.prod(tensor.get_shape())
    return count


def _download(path: str) -> str:
    """Download the checkpoint of a Hub repository, or take it from the cache, and return its folder."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(path, allow_patterns=list(HUB_FILES))
    except Exception as error:  # the Hub's client and HTTP errors share no base class
        raise ValueError(
            f"{path}: there is no such folder, and no such checkpoint could be loaded from the Hub ({reason(error)})."
        ) from error
    check_folder(folder, name=path)
    return folder


def load_scorer(
    path: str, *, device: str | None = None, dtype: str = "float32", fast_decode: bool | Literal["auto"] | None = None
) -> tuple[ScoringModel, SindImageProcessor]:
    """Load a model that can score images, and its image processor: a checkpoint or an exported file.

    Args:
        path: See `load`.
        device: See `load_checkpoint`; for an `.onnx` file `"cpu"` (default) or `"cuda"`.
        dtype: See `load_checkpoint`; an `.onnx` file computes in float32.
        fast_decode: Whether the processor decodes large JPEG files at a fraction of their size, see
            `SindImageProcessor`. None: as the checkpoint says.

    Raises:
        ValueError: See `load_checkpoint` and `OnnxSindModel`.
    """
    model: ScoringModel
    if is_onnx(path):
        if dtype != "float32":
            raise ValueError(f"{path}: dtype is {dtype!r}, but an ONNX file computes in float32: leave it out.")
        model = OnnxSindModel(path, device=device)
    else:
        model, _ = load_checkpoint(path, device=device, dtype=dtype, fused=True)
    processor = model.image_processor
    if fast_decode is not None:
        processor.fast_decode = fast_decode
    return model, processor


def default_device() -> str:
    """Return the device of this process: `"cuda"`, `"cuda:1"` if several processes share a machine, else `"cpu"`."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    number = os.environ.get("LOCAL_RANK")
    return accelerator.type if number is None else f"{accelerator.type}:{number}"


def check_folder(path: str, name: str | None = None) -> None:
    """Check that a folder holds a SIND checkpoint that may be loaded.

    Args:
        path: Folder, or the ID of a Hub repository, which is not checked.
        name: Name of the checkpoint in messages. Default: its path.

    Raises:
        ValueError: If the folder is missing, holds no SIND checkpoint, or names a backbone that is elsewhere.
    """
    folder, path = Path(path), name or path
    if is_onnx(path):
        raise ValueError(f"{path}: is an exported model, which can only score; give the checkpoint it was made from.")
    if not folder.exists():
        if path.startswith((".", os.sep, "~")) or path.count("/") != 1:
            raise ValueError(f"{path}: there is no such checkpoint folder.")
        return  # user/name is a Hub repository
    # Opening a named pipe waits for a writer, and reading a device may never end.
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ValueError(f"{path}/{file.name}: is not a regular file; remove it.")
    try:
        config = json.loads(read_text(folder / "config.json"))
    except FileNotFoundError:
        raise ValueError(f"{path}: holds no config.json, so it is not a checkpoint; check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}/config.json: cannot be read ({error}).") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "sind":
        raise ValueError(f"{path}: is a checkpoint of {kind!r}, not of SIND; start a SIND model from it by training.")
    for key, value in _settings_in(config):
        if key == "num_labels" and isinstance(value, (int, float)) and value > MOST_LABELS:
            raise ValueError(f"{path}/config.json: num_labels is {value:,}: at most {MOST_LABELS:,} are allowed.")
        if _is_elsewhere(key, value):
            raise ValueError(
                f"{path}/config.json: names weights or code that are elsewhere ({key} is {shown(value)}), which are "
                "never fetched; the configuration must describe its own backbone."
            )


def _is_elsewhere(key: str, value: Any) -> bool:
    """Tell whether transformers or timm would fetch what a setting names."""
    if key in ("backbone", "use_pretrained_backbone"):
        return bool(value)
    # A timm architecture may be `hf-hub:user/name`, and an implementation of attention a repository of kernels.
    named = key == "architecture" or key.endswith(("_implementation", "_implementation_internal"))
    return named and any(mark in str(value) for mark in ":/")


def _settings_in(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, those of nested configurations included."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
