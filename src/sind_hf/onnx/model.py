"""Score with an exported SIND model: onnxruntime takes the place of a `SindModel`."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sind_hf.image_processing_sind import ResizeBackend, SindImageProcessor, ViewMode
from sind_hf.modeling_sind import ImageScorer, SindModel, SindOutput

SUFFIX = ".onnx"
METADATA_KEY = "sind_hf"
METADATA_FORMAT = 1
ERRORS_ONLY = 3  # severity in onnxruntime's log
# Fields that an image processor has under the same names.
PROCESSOR_FIELDS = ("views", "resize_backend", "fast_decode", "color_management", "image_mean", "image_std")


@dataclass(frozen=True, kw_only=True)
class OnnxConfig:
    """Description of an exported file: JSON under the key `sind_hf` of its metadata.

    Attributes:
        backbone: `model_type` of the backbone.
        local_branch: Tokens of the local view that the head reads, see `SindConfig`.
        view_size: Side of both views, in pixels.
        views: `"center"` or `"nine"`, the default of the checkpoint.
        resize_backend: Library that resizes images, see `resize_images`.
        fast_decode: Whether large JPEG files are decoded at a fraction of their size, or `"auto"`; see
            `SindImageProcessor`.
        image_mean: Mean of the normalization, on the 0–1 scale. Part of the graph, whose inputs are uint8.
        image_std: Standard deviation of the normalization, see `image_mean`.
        score_scale: Scale of the calibration. Part of the graph.
        score_shift: Shift of the calibration. Part of the graph.
        score_range: `[lowest, highest]` score of the training data's scale, or None.
        higher_is_better: Always true.
        color_management: Whether embedded color profiles are converted to sRGB.
        versions: Versions of the packages that made the file.
    """

    backbone: str
    local_branch: str
    view_size: int
    views: ViewMode
    resize_backend: ResizeBackend
    fast_decode: bool | Literal["auto"]
    image_mean: list[float]
    image_std: list[float]
    score_scale: float
    score_shift: float
    score_range: list[float] | None
    higher_is_better: bool = True
    color_management: bool = True
    versions: dict[str, str]

    def to_json(self) -> str:
        """Return the text for the file's metadata."""
        return json.dumps({"format": METADATA_FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> OnnxConfig:
        """Read the text in a file's metadata.

        Raises:
            ValueError: If the text is not such JSON, or has a newer format. The message does not name the file.
        """
        try:
            values = dict(json.loads(text))
            if values.pop("format") != METADATA_FORMAT:
                raise ValueError("its metadata has another format than this version of sind-hf writes")
            # Files that older versions wrote lack the fields that have a default.
            names = [field.name for field in fields(cls) if field.default is MISSING or field.name in values]
            return cls(**{name: values[name] for name in names})
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"its metadata cannot be read ({error})") from None


class OnnxSindModel(ImageScorer):
    """Score views as `SindModel` does, with onnxruntime. `score_images` and `evaluate_manifest` take it as a model.

    Args:
        path: File that `sind-hf export` wrote.
        device: `"cpu"` (default), or `"cuda"`, `"cuda:1"` … with the package onnxruntime-gpu.
        threads: Threads per operation. Default: one for each core.

    Attributes:
        config: Its description.
        image_processor: Image processor that makes the views which the model reads.
        device: Device of the views. Always the CPU: onnxruntime moves them.

    Raises:
        ValueError: If onnxruntime is missing or lacks the device, or if `sind-hf export` did not write the file.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | os.PathLike[str], *, device: str | None = None, threads: int | None = None) -> None:
        self.path = Path(path)
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError(f'{path}: ONNX files need onnxruntime: pip install "sind-hf[onnx]"')
        if not self.path.is_file():
            raise ValueError(f"{path}: there is no such file.")
        self._session = _open(self.path, device, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ValueError(f"{path}: is an ONNX model, but not one that `sind-hf export` wrote.")
        try:
            self.config = OnnxConfig.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}: export the model again.") from None
        same = {name: getattr(self.config, name) for name in PROCESSOR_FIELDS}
        side = self.config.view_size
        self.image_processor = SindImageProcessor(size={"height": side, "width": side}, **same)

    def __call__(
        self, pixel_values: Tensor, local_pixel_values: Tensor | None = None, output_quality_map: bool = False
    ) -> SindOutput:
        """Score images by their views. The output holds `quality` and, if asked for, `quality_map`.

        Args:
            pixel_values: Global views, uint8, (B, 3, s, s), or T of them per image, (B, T, 3, s, s), whose scores are
                averaged.
            local_pixel_values: Local views of the same shape; not needed when `config.local_branch` is `"none"`.
            output_quality_map: Whether to return the 7×7 map.

        Raises:
            ValueError: If views have another type or shape, or a map is asked of a variant without patch tokens.
        """
        if output_quality_map and self.config.local_branch != "patch":
            raise ValueError(f"No quality map: local_branch={self.config.local_branch!r} reads no patch tokens.")
        views = {"pixel_values": pixel_values}
        if self.config.local_branch != "none":
            if local_pixel_values is None or local_pixel_values.shape != pixel_values.shape:
                raise ValueError("local_pixel_values must have the shape of pixel_values: the processor makes both.")
            views["local_pixel_values"] = local_pixel_values
        for name, view in views.items():
            self._check(name, view)
        # The graph takes single pairs of views. The score and the map are linear in what is averaged.
        pairs = pixel_values.shape[1] if pixel_values.ndim == 5 else 1
        outputs = ["quality", "quality_map"] if output_quality_map else ["quality"]
        found = self._session.run(outputs, {name: view.flatten(0, -4).cpu().numpy() for name, view in views.items()})
        averaged = (torch.from_numpy(value).unflatten(0, (-1, pairs)).mean(1) for value in found)
        return SindOutput(**dict(zip(outputs, averaged, strict=True)))

    def _check(self, name: str, view: Tensor) -> None:
        side = self.config.view_size
        if view.dtype != torch.uint8:
            what = "the exported model normalizes its input, so give it uint8 views"
            raise ValueError(f"{name} is {view.dtype}: {what}.")
        if view.ndim not in (4, 5) or tuple(view.shape[-3:]) != (3, side, side) or 0 in view.shape:
            raise ValueError(
                f"{name} has shape {tuple(view.shape)}: expected (B, 3, {side}, {side}) or (B, T, 3, {side}, {side})."
            )


ScoringModel = SindModel | OnnxSindModel


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path names an exported file rather than a checkpoint."""
    return Path(path).suffix.lower() == SUFFIX and not Path(path).is_dir()


def _provider(device: str | None) -> tuple[str, dict[str, Any]]:
    """Return onnxruntime's name for a device, and its options."""
    import onnxruntime

    kind, _, index = (device or "cpu").partition(":")
    if kind == "cpu" and not index:
        return "CPUExecutionProvider", {}
    if kind != "cuda" or (index and not index.isdecimal()):
        raise ValueError(f"device {device!r} cannot be used with an ONNX file: choose cpu or cuda.")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ValueError(f"device {device!r} cannot be used: this onnxruntime has no CUDA; install onnxruntime-gpu.")
    # Its default, TF32, rounds products to 10 bits: scores would leave the tolerance that the export was held to.
    return "CUDAExecutionProvider", {"device_id": index or "0", "use_tf32": "0"}


def _open(path: Path, device: str | None, threads: int | None) -> Any:
    import onnxruntime

    provider = _provider(device)
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = str(error).partition(" : ")[2] or str(error)
        raise ValueError(f"{path}: onnxruntime cannot load this file ({' '.join(reason.split())}).") from error
    if session.get_providers()[0] != provider[0]:  # it silently continues without a device that does not start
        what = "onnxruntime could not start it; leave it out for the CPU"
        raise ValueError(f"device {device!r} cannot be used: {what}.")
    return session
