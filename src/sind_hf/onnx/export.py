"""Export a SIND model to an ONNX file, for programs without torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sind_hf import __version__
from sind_hf.files import atomic_file
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.onnx.model import METADATA_KEY, SUFFIX, OnnxConfig, OnnxSindModel

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A protobuf message ends at 2 GiB; the graph itself needs some of them.
LARGEST = 2_000_000_000
TOLERANCE = 1e-4  # relative to the scores, once those are above 1
INPUTS = ["pixel_values", "local_pixel_values"]
COMPARED = (1, 3)  # sizes of batches; the graph is traced with two images


@dataclass(frozen=True)
class OnnxExport:
    """An exported file.

    Attributes:
        path: Path of the file.
        size: Size of the file in bytes.
        difference: Largest difference of its scores from PyTorch's on generated views.
    """

    path: Path
    size: int
    difference: float


class _Graph(nn.Module):
    """The model with plain tensors as input and output, as in the file."""

    def __init__(self, model: SindModel) -> None:
        super().__init__()
        self.model = model
        self.has_map = model.config.local_branch == "patch"

    def forward(self, pixel_values: Tensor, local_pixel_values: Tensor | None = None) -> tuple[Tensor, ...]:
        output = self.model(pixel_values, local_pixel_values, output_quality_map=self.has_map)
        return (output.quality, output.quality_map) if self.has_map else (output.quality,)


def export_onnx(model: SindModel, processor: SindImageProcessor, path: str | os.PathLike[str]) -> OnnxExport:
    """Write a model as one ONNX file that `OnnxSindModel`, and any ONNX runtime, can score with.

    Inputs: `pixel_values` and, unless `local_branch` is `"none"`, `local_pixel_values`, both uint8 (B, 3, s, s) for
    any B. Normalization and calibration are part of the graph. Outputs: `quality` (B,) and, of the variant `"patch"`,
    `quality_map` (B, 7, 7), both float32. The metadata are those of `OnnxConfig`. The file takes its place only after
    it was checked, and its scores were compared with PyTorch's.

    Args:
        model: Model with float32 weights.
        processor: Image processor of the same checkpoint.
        path: File to write, `….onnx`; an existing one is replaced.

    Raises:
        ValueError: If a package is missing, the model or the path is unusable, the backbone cannot be exported, or
            the file's scores are not PyTorch's.
    """
    path = Path(path)
    _check_request(model, processor, path)
    was_training = model.training
    model.eval()
    try:
        with atomic_file(path) as temporary:
            _write(model, processor, temporary)
            difference = _compare(model, temporary)
    finally:
        model.train(was_training)
    return OnnxExport(path, path.stat().st_size, difference)


def require_onnx() -> None:
    """Check that the packages of the export are installed.

    Raises:
        ValueError: If one is not. The message says how to install it.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'The export needs {" and ".join(missing)}: pip install "sind-hf[onnx]"')


def _check_request(model: SindModel, processor: SindImageProcessor, path: Path) -> None:
    require_onnx()
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"{path}: the file must end in {SUFFIX}, by which it is known when it scores.")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}.")
    made, read = processor.size["height"], model.config.view_size
    if made != read:
        raise ValueError(f"The image processor makes views of {made} px, but the model reads {read} px.")
    weights = [*model.parameters(), *model.buffers()]
    if other := {str(weight.dtype) for weight in weights if weight.is_floating_point()} - {"torch.float32"}:
        raise ValueError(f"The weights are {' and '.join(sorted(other))}: export it in float32.")
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    if size > LARGEST:
        what = f"The model's {size / 1e9:.1f} GB are too much for one ONNX file"
        raise ValueError(f"{what}, which ends at 2 GB: use a smaller one.")


def _write(model: SindModel, processor: SindImageProcessor, path: Path) -> None:
    import onnx

    graph = _Graph(model).eval()
    views = _generated_views(model, 2)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), _quiet():
            program: Any = torch.onnx.export(
                graph,
                views,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=INPUTS[: len(views)],
                output_names=["quality", "quality_map"][: 2 if graph.has_map else 1],
                dynamic_shapes=({0: batch},) * len(views),
            )
    except Exception as error:  # tracing an unknown backbone may fail in any way
        kind: Any = model.config.vision_config
        raise ValueError(
            f"The backbone {kind.model_type!r} cannot be exported to ONNX by torch {torch.__version__} "
            f"({_first_cause(error)})."
        ) from error
    for node in program.model.graph.all_nodes():  # stack traces, with the paths of this machine
        node.metadata_props.clear()
    program.model.metadata_props[METADATA_KEY] = _config(model, processor).to_json()
    program.save(path, external_data=False)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"torch {torch.__version__} made an ONNX file that is not valid ({error}).") from error


def _config(model: SindModel, processor: SindImageProcessor) -> OnnxConfig:
    config, vision = model.config, model._backbone_config
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnx", "onnxscript")}
    return OnnxConfig(
        backbone=vision.model_type,
        local_branch=config.local_branch,
        view_size=int(config.view_size or 0),
        views=processor.views,
        resize_backend=processor.resize_backend,
        fast_decode=processor.fast_decode,
        color_management=processor.color_management,
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
        score_scale=config.score_scale,
        score_shift=config.score_shift,
        score_range=None if config.score_range is None else list(config.score_range),
        versions={"sind_hf": __version__, **versions},
    )


def _compare(model: SindModel, path: Path) -> float:
    """Return the largest difference of scores and maps from PyTorch's."""
    exported = OnnxSindModel(path)
    wants_map = model.config.local_branch == "patch"
    largest = 0.0
    for count in COMPARED:
        inputs: dict[str, Any] = dict(zip(INPUTS, _generated_views(model, count), strict=False))
        with torch.inference_mode():
            expected = model(**inputs, output_quality_map=wants_map)
        found = exported(**inputs, output_quality_map=wants_map)
        for name, value in found.items():
            wanted = expected[name].cpu()
            difference = float((value - wanted).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
                what = f"The exported {name} differs from PyTorch's by {difference:.1e}"
                raise ValueError(f"{what}, more than {TOLERANCE:.0e} of it: nothing was written.")
            if name == "quality":
                largest = max(largest, difference)
    return largest


def _generated_views(model: SindModel, count: int) -> tuple[Tensor, ...]:
    """Return views of colored blocks. Unlike noise, they differ from one image to the next as a whole."""
    generator = torch.Generator().manual_seed(count)
    number = 1 if model.config.local_branch == "none" else 2
    blocks = torch.randint(0, 256, (number, count, 3, 8, 8), generator=generator).to(torch.uint8)
    repeat = int(model.config.view_size or 0) // 8
    pixels = blocks.repeat_interleave(repeat, -1).repeat_interleave(repeat, -2)
    return tuple(pixels.to(model.device))


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about operators of torchvision and about itself."""
    with warnings.catch_warnings(), ExitStack() as levels:
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logger = logging.getLogger(name)
            levels.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield
