"""The SIND network: one backbone sees both views, a linear head reads complementary tokens of each.

Token-complementary patch reasoning (paper, section III): the class token of the global view describes the content of
the image, and the patch tokens of the local view describe how sharp, noisy or compressed it is. The other tokens are
not used.
"""

from __future__ import annotations

import inspect
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import AutoConfig, AutoModel, CLIPVisionModel, CLIPVisionModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from .configuration_sind import GRID, SindConfig, resolve_checkpoint
from .image_processing_sind import ImageError, SindImageProcessor
from .losses import by_scene
from .pipeline_sind import SindPipeline  # noqa: F401  (so that the pipeline's file travels with every checkpoint)

MIN_CHANNELS_LAST = 16
MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens before the patch tokens
# Bounds on what a model folder may declare: far above every published model, and checked before memory is taken.
MAX_PARAMETERS = 20_000_000_000
MAX_PATCH_TOKENS = 2**16
# Options of `from_pretrained` by which the image processor is found, too. No token: models are pickled and copied.
HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "subfolder")


@dataclass(frozen=True)
class TokenLayout:
    """What a backbone returns for one view. The cells of a convolutional backbone's feature map are its tokens."""

    side: int  # patch tokens per side of the view
    prefix: int  # tokens before the patch tokens; the first of them is the class token
    width: int  # features per token
    global_width: int  # features of the class token, or of the pooled features where there is no class token
    # The norm that the backbone applies to its pooled features only, if it does: tokens are read after it, too.
    final_norm: str | None


_TOKEN_LAYOUTS: dict[tuple[type, str, int | None], TokenLayout] = {}


@dataclass
class SindOutput(ModelOutput):
    """Output of a `SindModel` for B images.

    Attributes:
        loss: Scalar, when `labels` were given.
        quality: (B,) float32, the calibrated score; higher is better.
        quality_map: (B, 7, 7) float32, when asked for: what each fragment adds to the raw score. Raw means without
            bias, scale and shift: `quality = score_scale · (b + W_g·g + mean(quality_map)) + score_shift`.
        global_embeds: (B, D), the class token of the global view, averaged over view pairs.
        local_embeds: (B, C), mean patch token (or class token) of the local view, averaged over view pairs.
        hidden_states: When asked for with `output_hidden_states`: those of the backbone, as it returns them. Their
            first dimension holds the global views of all images (T per image), then the local views.
        attentions: When asked for with `output_attentions`, in the same order.
    """

    loss: Tensor | None = None
    quality: Tensor | None = None
    quality_map: Tensor | None = None
    global_embeds: Tensor | None = None
    local_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class QualityHead(nn.Linear):
    """The linear head, computed in float32 whatever the type of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input · weightᵀ + bias` in float32."""
        return F.linear(input.float(), self.weight.float(), self.bias.float())


class ImageScorer:
    """From images to scores in one call: what `SindModel` and an exported model have in common."""

    _image_processor: SindImageProcessor | None = None
    _checkpoint: tuple[str | os.PathLike[str], dict[str, Any]] | None = None  # where the processor is, and options

    @property
    def image_processor(self) -> SindImageProcessor:
        """Image processor of the checkpoint, which `score` and `quality_map` use; loaded when first needed.

        Raises:
            ValueError: If the model was not loaded from a checkpoint, or its image processor cannot be loaded.
        """
        if self._image_processor is None:
            if self._checkpoint is None:
                raise ValueError(
                    "This model was not loaded from a checkpoint, so it has no image processor: pass one, as in "
                    "model.score(images, SindImageProcessor())."
                )
            source, options = self._checkpoint
            try:
                self._image_processor = SindImageProcessor.from_pretrained(source, **options)
            except OSError as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{source}: cannot load the image processor of this checkpoint ({reason}): pass one, as in "
                    "model.score(images, processor)."
                ) from error
        return self._image_processor

    @image_processor.setter
    def image_processor(self, processor: SindImageProcessor) -> None:
        self._image_processor = processor

    def score(
        self,
        images: Any,
        processor: SindImageProcessor | None = None,
        batch_size: int = 8,
        views: str | None = None,
    ) -> list[float]:
        """Score images.

        Args:
            images: One image or several, in a list, a column or a generator: paths, URLs, PIL images, arrays, tensors.
            processor: Image processor to use. Default: the checkpoint's own, see `image_processor`.
            batch_size: Images per forward pass.
            views: `"center"` or `"nine"`. Default: the processor's own setting.

        Returns:
            One score per image; higher is better; on `config.score_range` if that is declared.

        Raises:
            ValueError: If an image cannot be read (`ImageError`); the message names it.
        """
        return [score for score, _ in self._score_all(images, processor, batch_size, views)]

    def quality_map(
        self,
        images: Any,
        processor: SindImageProcessor | None = None,
        batch_size: int = 8,
        views: str | None = None,
    ) -> Tensor:
        """Map the quality of images over 7×7 fragments. The arguments are those of `score`.

        Returns:
            (N, 7, 7) float32 on the CPU, also for one image: what each fragment adds to the raw score.

        Raises:
            ValueError: See `score`; or if the model's `local_branch` reads no patch tokens.
        """
        found = self._score_all(images, processor, batch_size, views, quality_maps=True)
        return torch.stack([quality_map for _, quality_map in found]) if found else torch.zeros(0, GRID, GRID)

    def _score_all(
        self: Any,
        images: Any,
        processor: SindImageProcessor | None,
        batch_size: int,
        views: str | None,
        quality_maps: bool = False,
    ) -> list[tuple[float, Tensor]]:
        processor = processor or self.image_processor
        mode: Any = views or processor.views
        if mode not in ("center", "nine"):
            raise ValueError(f"views must be 'center' or 'nine', not {mode!r}.")
        was_training = getattr(self, "training", None)  # an exported model has no modes
        if was_training is not None:
            self.eval()
        try:
            found = []
            stream, make_views = processor.each_image(images), partial(processor.make_views, mode=mode)
            for _, result in self.score_stream(stream, make_views, batch_size=batch_size, quality_maps=quality_maps):
                if isinstance(result, ImageError):
                    raise result
                found.append(result)
            return found
        finally:
            if was_training is not None:
                self.train(was_training)

    def score_stream(
        self: Any,
        images: Iterable[Any],
        make_views: Callable[[Any], tuple[np.ndarray, np.ndarray]],
        *,
        batch_size: int,
        workers: int = 0,
        quality_maps: bool = False,
    ) -> Iterator[tuple[Any, tuple[float, Tensor | None] | ImageError]]:
        """Score a stream of any length, batch by batch: the loop that all ways to score images share.

        The stream is read in this process, a few batches ahead of the model.

        Args:
            images: Images, in any form that `make_views` takes.
            make_views: Cuts the views of one image, see `SindImageProcessor.make_views`.
            batch_size: Images per forward pass.
            workers: Processes that make views ahead of the model; 0 makes them in this one.
            quality_maps: Whether to make maps.

        Yields:
            Every image in the order of the stream, with its score and map, or with the error of `make_views`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        waiting: deque[list[Any]] = deque()  # the batches that were handed to the loader

        def batches() -> Iterator[list[Any]]:
            stream = iter(images)
            while batch := list(islice(stream, batch_size)):
                waiting.append(batch)
                yield batch

        # The loader takes batches only as fast as results are fetched: memory does not grow with the stream. It gets
        # its own generator, so that scoring draws nothing from torch's.
        loader = DataLoader(
            _Views(make_views),
            batch_sampler=batches(),
            num_workers=workers,
            collate_fn=_stack_views,
            generator=torch.Generator(),
        )
        for views, errors in loader:
            results: Iterator[tuple[float, Tensor | None]] = iter(())
            if views:
                with torch.inference_mode():
                    output = self(*(view.to(self.device) for view in views), output_quality_map=quality_maps)
                scores = output.quality.tolist()
                results = zip(scores, output.quality_map.cpu() if quality_maps else [None] * len(scores), strict=True)
            for image, error in zip(waiting.popleft(), errors, strict=True):
                yield image, next(results) if error is None else error


class _Views(TorchDataset):
    """The views of an image, or the error: one bad image must not stop the others. Its keys are the images."""

    def __init__(self, make_views: Callable[[Any], tuple[np.ndarray, np.ndarray]]) -> None:
        self.make_views = make_views

    def __getitem__(self, image: Any) -> tuple[Tensor, ...] | ImageError:
        try:
            return tuple(torch.from_numpy(view) for view in self.make_views(image))
        except ImageError as error:
            return ImageError(str(error))  # without its cause, which may not reach another process


def _stack_views(samples: list[Any]) -> tuple[list[Tensor], list[ImageError | None]]:
    """Stack the views of a batch. Return them, and the error of every image that has none."""
    errors = [sample if isinstance(sample, ImageError) else None for sample in samples]
    good = [sample for sample in samples if not isinstance(sample, ImageError)]
    return [torch.stack(views) for views in zip(*good, strict=True)], errors


class SindModel(ImageScorer, PreTrainedModel):
    """SIND: predicts how good a photograph looks, without a reference.

    Loading a CLIP checkpoint, `SindModel.from_pretrained("openai/clip-vit-base-patch16", config=SindConfig())`, fills
    the backbone and leaves the head fresh; `SindModel.from_backbone(path)` does so for any vision checkpoint.

    Args:
        config: Sizes, variant and calibration.
        most_parameters: Largest number of parameters that the configuration may declare. A model folder is not
            trusted, and `from_pretrained` takes no memory for parameters before this is checked.

    Raises:
        ValueError: If the backbone cannot be used, or the configuration declares too many parameters.

    Example:
        >>> from sind_hf import SindConfig, SindModel
        >>> tiny = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        >>> model = SindModel(SindConfig(vision_config=tiny)).eval()
        >>> views = torch.zeros(2, 3, 224, 224)
        >>> tuple(model(views, views, output_quality_map=True).quality_map.shape)
        (2, 7, 7)
    """

    config_class = SindConfig
    config: SindConfig
    is_fused = False  # whether `sind_hf.fusion.fuse` folded its BatchNorms away
    image_mean: Tensor
    image_std: Tensor
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over this batch, whatever the Trainer accumulates
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # A whole CLIP checkpoint fills the backbone; its text half is not ours.
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_scale$", r"position_ids$"]

    def __init__(self, config: SindConfig, most_parameters: int = MAX_PARAMETERS) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        self.is_clip = vision.model_type == "clip_vision_model"
        # Named as in CLIPModel, so that a CLIP checkpoint loads straight into them.
        if self.is_clip:
            self.vision_model = CLIPVisionModel._from_config(vision)
            self.visual_projection = nn.Linear(vision.hidden_size, vision.projection_dim, bias=False)
        else:
            self.vision_model = _backbone(vision)
        self.wants_channels_last = _gains_from_channels_last(self.vision_model)
        # Position embeddings of another size than the views' are interpolated, where the backbone offers that.
        takes = inspect.signature(self.vision_model.forward).parameters
        resized = getattr(vision, "image_size", None) not in (None, config.view_size, [config.view_size] * 2)
        self.backbone_options = (
            {"interpolate_pos_encoding": True} if resized and "interpolate_pos_encoding" in takes else {}
        )
        self.token_layout = self._find_token_layout()
        global_width = vision.projection_dim if self.is_clip else self.token_layout.global_width
        local_width = {"patch": self.token_layout.width, "class": global_width, "none": 0}[config.local_branch]
        self.head_widths = [global_width, local_width]
        self.quality_head = QualityHead(sum(self.head_widths), 1)
        self.register_buffer("image_mean", torch.tensor(config.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(config.image_std).view(3, 1, 1), persistent=False)
        declared = sum(parameter.numel() for parameter in self.parameters())
        if declared > most_parameters:
            raise ValueError(
                f"config.json declares {declared:,} parameters, but at most {most_parameters:,} are expected"
            )
        self._hold_frozen()
        self.post_init()

    @property
    def _backbone_config(self) -> Any:  # its fields depend on the backbone
        return self.config.vision_config

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            init.copy_(self.image_mean, torch.tensor(self.config.image_mean).view(3, 1, 1))
            init.copy_(self.image_std, torch.tensor(self.config.image_std).view(3, 1, 1))
            init.normal_(self.quality_head.weight, std=self.config.initializer_range)
            init.zeros_(self.quality_head.bias)
            if self.is_clip:
                init.normal_(self.visual_projection.weight, std=self._backbone_config.hidden_size**-0.5)

    @classmethod
    def from_pretrained(  # the options of the base class, passed on
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint: a folder, a Hub repository ID, or `"bundled"`.

        The model remembers where its image processor is: `model.score(images)` loads it from the same place. The
        options are those of `PreTrainedModel.from_pretrained`.

        Returns:
            The model in evaluation mode, and details of the loading if `output_loading_info=True`.
        """
        source = resolve_checkpoint(pretrained_model_name_or_path)
        loaded: Any = super().from_pretrained(source, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if source is not None:
            options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            model._checkpoint = (source, options)
        return loaded

    @classmethod
    def from_backbone(cls, path: str, *, hub_options: dict[str, Any] | None = None, **settings: Any) -> SindModel:
        """Start a fresh SIND model from any vision checkpoint of transformers.

        Args:
            path: Folder or Hub repository of a CLIP, ViT, DINOv2, Swin, ConvNeXt, ResNet … model.
            hub_options: Passed to the backbone's `from_pretrained` (`revision`, `token`, …).
            **settings: Fields of `SindConfig`, such as `local_branch`. The backbone's configuration comes from the
                checkpoint, and so does `view_size` where it is not given.

        Returns:
            A model whose backbone holds the checkpoint's weights and whose head is fresh.
        """
        options = hub_options or {}
        model = cls(SindConfig(vision_config=AutoConfig.from_pretrained(path, **options), **settings))
        vision = model._backbone_config
        if model.is_clip:
            pretrained = CLIPVisionModelWithProjection.from_pretrained(path, config=vision, **options)
            model.visual_projection.load_state_dict(pretrained.visual_projection.state_dict())
            weights = pretrained.vision_model.state_dict()
        else:
            if getattr(model.vision_model, "pooler", None) and _may_leave_out_pooler(type(model.vision_model)):
                options = {**options, "add_pooling_layer": True}
            weights = AutoModel.from_pretrained(path, config=vision, **options).state_dict()
        own = model.vision_model.state_dict()
        # The checkpoint may bring a pooler that the backbone was built without; nothing may be missing.
        model.vision_model.load_state_dict({key: value for key, value in weights.items() if key in own})
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that first reads the pixels: the patch embedding or the first convolution."""
        with suppress(NotImplementedError):  # transformers finds the layer in some of its backbones only
            if (embeddings := self.vision_model.get_input_embeddings()) is not None:
                return embeddings
        return next(module for module in self.vision_model.modules() if isinstance(module, nn.Conv2d))

    def freeze_backbone(self) -> None:
        """Stop training the backbone, its projection and its BatchNorm statistics; the head stays trainable."""
        self.config.freeze_backbone = True
        self._hold_frozen()

    def freeze_batch_norm(self) -> None:
        """Stop BatchNorm's statistics, which also normalize in training then; its weights stay trainable."""
        self.config.freeze_batch_norm = True
        self._hold_frozen()

    def _hold_frozen(self) -> None:
        frozen = self.config.freeze_backbone
        for name, parameter in self.named_parameters():
            # Mask tokens serve the pretraining on masked images (DINOv2); nothing is masked here.
            if name.endswith("mask_token") or (frozen and not name.startswith("quality_head.")):
                parameter.requires_grad_(False)
        if frozen:
            self.vision_model.eval()
        if self.config.freeze_batch_norm:
            for module in self.vision_model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def train(self, mode: bool = True) -> SindModel:
        """Switch to training or evaluation mode; what is frozen stays in evaluation mode.

        Raises:
            ValueError: If the model was loaded for scoring only.
        """
        if mode:
            self._require_unfused("trained")
        super().train(mode)
        # Here too, since `from_pretrained` puts new parameters in place of the frozen ones, and ends with `eval()`.
        self._hold_frozen()
        return self

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:  # the options of the base class, passed on
        """Save the model, see `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: If the model was loaded for scoring only.
        """
        self._require_unfused("saved")
        return super().save_pretrained(*args, **kwargs)

    def _require_unfused(self, verb: str) -> None:
        if self.is_fused:
            raise ValueError(
                f"This model was loaded for scoring only and cannot be {verb}: load the checkpoint with "
                "SindModel.from_pretrained."
            )

    def forward(
        self,
        pixel_values: Tensor,
        local_pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        scene_ids: Tensor | None = None,
        output_quality_map: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SindOutput | tuple[Tensor, ...]:
        """Score images, given their views.

        Args:
            pixel_values: Global views, (B, 3, s, s), or T of them per image, (B, T, 3, s, s), whose scores are
                averaged. Floating point: normalized already; uint8: raw pixels, normalized here.
            local_pixel_values: Local views of the same shape; not needed when `config.local_branch` is `"none"`.
            labels: (B,) opinion scores, higher better: gives the loss `config.loss_type`.
            scene_ids: (B,) integer scene of each image; the loss aligns within each. `None`: one scene.
            output_quality_map: Whether to return the 7×7 map.
            return_dict: `False` for a plain tuple of what is not `None`. Default: `config.return_dict`.
            **kwargs: Passed to the backbone: `output_hidden_states`, `output_attentions`.

        Returns:
            `SindOutput`.

        Raises:
            ValueError: On a wrong shape, missing local views, or a map asked of a variant without patch tokens.
        """
        branch = self.config.local_branch
        self._check_inputs(pixel_values, local_pixel_values, output_quality_map)
        batch, pairs = pixel_values.shape[0], pixel_values.shape[1] if pixel_values.ndim == 5 else 1
        views = [pixel_values]
        if local_pixel_values is not None and branch != "none":
            views.append(local_pixel_values)
        # One call for both views: the joint batch also defines BatchNorm's statistics.
        pixels = torch.cat([self._normalize(view.flatten(0, -4)) for view in views])
        if self.wants_channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.vision_model(pixel_values=pixels, **self.backbone_options, **kwargs)
        last, pooled = self._tokens_and_pooled(features)

        count = batch * pairs
        global_tokens = self._class_token(last[:count], None if pooled is None else pooled[:count])
        global_embeds = global_tokens.unflatten(0, (batch, pairs)).mean(1)
        local_embeds = quality_map = None
        if branch == "class":
            local_tokens = self._class_token(last[count:], None if pooled is None else pooled[count:])
            local_embeds = local_tokens.unflatten(0, (batch, pairs)).mean(1)
        elif branch == "patch":
            patches = self._patch_tokens(last[count:]).unflatten(0, (batch, pairs)).mean(1)
            local_embeds = patches.mean(1)

        with torch.autocast(pixels.device.type, enabled=False):  # the head is float32, whatever the backbone is
            # The head is only ever called, never read, so that adapters, quantization and offloading of it take part.
            embeds = global_embeds if local_embeds is None else torch.cat([global_embeds, local_embeds], dim=-1)
            raw = self.quality_head(embeds.float()).squeeze(-1)
            quality = self.config.score_scale * raw + self.config.score_shift
            if output_quality_map:
                patches = F.pad(patches.float(), (self.head_widths[0], 0))  # zeros in place of the global features
                without_bias = self.quality_head(patches) - self.quality_head(torch.zeros_like(patches[:1, :1]))
                quality_map = pool_to_grid(without_bias.squeeze(-1))
            loss = None if labels is None else by_scene(quality, labels, scene_ids, self.config.loss_type)

        inner = {
            name: getattr(features, name, None)
            for name in ("hidden_states", "attentions")
            if kwargs.get(f"output_{name}") or getattr(self._backbone_config, f"output_{name}")
        }
        output = SindOutput(loss, quality, quality_map, global_embeds, local_embeds, **inner)
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()

    def _check_inputs(self, pixel_values: Tensor, local_pixel_values: Tensor | None, wants_map: bool) -> None:
        if pixel_values.ndim not in (4, 5) or pixel_values.shape[-3] != 3 or 0 in pixel_values.shape:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}: expected (B, 3, s, s) or (B, T, 3, s, s)."
            )
        side = self.config.view_size
        if tuple(pixel_values.shape[-2:]) != (side, side):
            height, width = pixel_values.shape[-2:]
            raise ValueError(
                f"pixel_values has views of {width}×{height} px, but this model reads {side}×{side} px: make them "
                "with the checkpoint's own image processor."
            )
        if self.config.local_branch != "none":
            if local_pixel_values is None:
                raise ValueError("local_pixel_values is missing: the processor makes both views, pass all it returns.")
            if local_pixel_values.shape != pixel_values.shape:
                raise ValueError(
                    f"local_pixel_values has shape {tuple(local_pixel_values.shape)}, but pixel_values "
                    f"{tuple(pixel_values.shape)}: both views of every image are needed."
                )
        if wants_map and self.config.local_branch != "patch":
            raise ValueError(f"No quality map: local_branch={self.config.local_branch!r} reads no patch tokens.")

    def _normalize(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.uint8:
            # In float32 also when the weights are not: 8 bits of mantissa would blur the pixels once more.
            pixels = (pixels.float() / 255 - self.image_mean.float()) / self.image_std.float()
        # Under autocast the backbone casts by itself; a backbone of bfloat16 weights wants bfloat16 pixels.
        return pixels if torch.is_autocast_enabled(pixels.device.type) else pixels.to(self.vision_model.dtype)

    def _tokens_and_pooled(self, output: Any) -> tuple[Tensor, Tensor | None]:
        last: Any = _last_hidden_state(output)  # `token_layout` refuses backbones that have none
        pooled = getattr(output, "pooler_output", None)
        if last.ndim == 4:  # a feature map: its cells are the tokens
            # Most have the channels before the square of cells, some after it.
            last = last.flatten(2).transpose(1, 2) if last.shape[2] == last.shape[3] else last.flatten(1, 2)
        if self.token_layout.final_norm is not None:
            last = self.vision_model.get_submodule(self.token_layout.final_norm)(last)
        return last, None if pooled is None else pooled.flatten(1)

    def _class_token(self, last: Tensor, pooled: Tensor | None) -> Tensor:
        if self.is_clip:
            return self.visual_projection(pooled)  # CLIP's pooler is post_layernorm of the class token
        if self.token_layout.prefix > 0:
            return last[:, 0]
        return last.mean(1) if pooled is None else pooled

    def _patch_tokens(self, last: Tensor) -> Tensor:
        return last[:, self.token_layout.prefix :]

    def _find_token_layout(self) -> TokenLayout:
        """Probe the backbone, unless one of its class and configuration was probed for views of this size before."""
        backbone = type(self.vision_model)
        key = (backbone, self._backbone_config.to_json_string(use_diff=False), self.config.view_size)
        if key not in _TOKEN_LAYOUTS:
            _TOKEN_LAYOUTS[key] = self._probe_backbone()
        return _TOKEN_LAYOUTS[key]

    def _probe_backbone(self) -> TokenLayout:
        """Ask the backbone itself what it returns for a view, by a forward pass on the meta device (shapes only)."""
        backbone, side = self.vision_model, int(self.config.view_size or 0)
        refused = f"Cannot use {self._backbone_config.model_type!r} as a backbone for views of {side} px"
        parameters = inspect.signature(backbone.forward).parameters.values()
        needed = [
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name != "pixel_values"
        ]
        if needed:
            raise ValueError(f"{refused}: besides pixel_values it needs {' and '.join(needed)}.")
        tensors = [*backbone.named_parameters(), *backbone.named_buffers()]
        shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
        pixels = torch.empty(2, 3, side, side, dtype=backbone.dtype, device="meta")
        attention, was_training = backbone.config._attn_implementation, backbone.training
        normed: list[tuple[str, tuple[int, ...]]] = []  # the norms in the order of their calls, and their shapes
        hooks = [
            module.register_forward_hook(lambda *call, name=name: normed.append((name, tuple(call[-1].shape))))
            for name, module in backbone.named_modules()
            if type(module).__name__.endswith("Norm")
        ]
        try:
            backbone.config._attn_implementation = "eager"  # others have kernels that the meta device lacks
            with torch.no_grad():
                values = {"pixel_values": pixels, **self.backbone_options}
                output = functional_call(backbone.eval(), shapes, kwargs=values)
        except Exception as error:  # backbones of other authors raise anything
            raise ValueError(f"{refused}: {_reason(error)}.") from error
        finally:
            backbone.config._attn_implementation = attention
            backbone.train(was_training)
            for hook in hooks:
                hook.remove()
        return self._token_layout(output, normed, refused)

    def _token_layout(self, output: Any, normed: list[tuple[str, tuple[int, ...]]], refused: str) -> TokenLayout:
        last, pooled = _last_hidden_state(output), getattr(output, "pooler_output", None)
        if last is None or "encoder_last_hidden_state" in output:
            raise ValueError(f"{refused}: it returns no features of places in the image.")
        shape = tuple(last.shape)
        if shape[0] != 2 or last.ndim not in (3, 4):
            raise ValueError(f"{refused}: for 2 views it returns features of the shape {shape}.")
        if last.ndim == 4:
            cells, width, prefix = shape[2], shape[1], 0
            if shape[2] != shape[3]:
                cells, width = shape[1], shape[3]
                if shape[1] != shape[2]:
                    raise ValueError(f"{refused}: its feature map of the shape {shape} is not square.")
        else:
            width, prefix = shape[2], self._prefix_tokens(shape[1])
            cells = math.isqrt(shape[1] - prefix)
            if cells**2 != shape[1] - prefix:
                raise ValueError(
                    f"{refused}: it returns {shape[1]} tokens, which are not a square of patches; set view_size to "
                    "the backbone's own size, if that is another."
                )
        if cells**2 > MAX_PATCH_TOKENS:
            raise ValueError(f"{refused}: it returns {cells}×{cells} tokens per view, more than {MAX_PATCH_TOKENS:,}.")
        global_width = width if prefix or pooled is None else pooled.shape[1:].numel()
        name, normed_shape = normed[-1] if normed else (None, ())
        return TokenLayout(cells, prefix, width, global_width, name if normed_shape == (2, width) else None)

    def _prefix_tokens(self, tokens: int) -> int:
        """Return how many tokens (class, distillation, registers) come before the patch tokens."""
        for module in self.vision_model.modules():
            if isinstance(stated := getattr(module, "num_prefix_tokens", None), int):  # the models of timm
                return stated
        patch = getattr(self._backbone_config, "patch_size", None)
        if isinstance(patch, (list, tuple)) and len(set(patch)) == 1:
            patch = patch[0]
        if isinstance(patch, int):
            prefix = tokens - (int(self.config.view_size or 0) // patch) ** 2
            if 0 <= prefix <= MAX_PREFIX_TOKENS:
                return prefix
        # Hierarchical backbones merge patches. Most have no class token; those that have one state no patch size.
        return int(patch is None and math.isqrt(tokens) ** 2 != tokens)


def pool_to_grid(tokens: Tensor) -> Tensor:
    """Average a square of token values, (B, p²) row by row, over the fragments by overlap area: (B, 7, 7).

    Tokens that straddle two fragments count for both in proportion (ViT-L/14: 16 tokens over 7 fragments), so that
    the mean over the grid is exactly the mean over the tokens.
    """
    side = math.isqrt(tokens.shape[-1])
    edges = torch.arange(GRID + 1, dtype=torch.float64) * side / GRID
    starts = torch.arange(side, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    weights = (overlap.clamp_min(0) * GRID / side).to(tokens)
    return weights @ tokens.unflatten(-1, (side, side)) @ weights.T


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _backbone(vision: Any) -> PreTrainedModel:
    refused = f"Cannot use {vision.model_type!r} as a backbone"
    if type(vision) not in MODEL_MAPPING:
        raise ValueError(f"{refused}: transformers has no base model for it.")
    backbone_class: Any = MODEL_MAPPING[type(vision)]
    vision.return_dict = True  # its output is read by name
    has_choice = _may_leave_out_pooler(backbone_class)
    try:
        with torch.device("meta"):  # takes no memory for weights
            sketch = backbone_class(vision, **({"add_pooling_layer": True} if has_choice else {}))
    except Exception as error:  # any configuration is possible; some need timm or natten
        raise ValueError(f"{refused}: {_reason(error)}.") from error
    count = sum(parameter.numel() for parameter in sketch.parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(
            f"{refused}: its configuration declares {count:.1e} parameters, more than {MAX_PARAMETERS:.0e}."
        )
    # The tanh pooler of a ViT is not used here, and unused parameters would break distributed training. The pooler of
    # BEiT and Hiera is needed, since it holds their final norm.
    pooler = getattr(sketch, "pooler", None)
    has_norm = pooler is not None and any(type(module).__name__.endswith("Norm") for module in pooler.modules())
    return AutoModel.from_config(vision, **({"add_pooling_layer": has_norm} if has_choice else {}))


def _may_leave_out_pooler(backbone_class: Any) -> bool:
    try:
        return "add_pooling_layer" in inspect.signature(backbone_class).parameters
    except ImportError:  # a class of a package that is not installed; building it says so
        return False


def _last_hidden_state(output: Any) -> Tensor | None:
    maps = getattr(output, "feature_maps", None)  # a few models exist only as "backbones" in transformers
    return maps[-1] if maps else getattr(output, "last_hidden_state", None)


def _gains_from_channels_last(backbone: nn.Module) -> bool:
    """Return whether channels-last pixels make the backbone faster (by a quarter, where it is convolutional)."""
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    # oneDNN (torch 2.13) crashes in the backward pass of a strided 1×1 convolution of fewer than 16 channels.
    crashes = any(
        convolution.kernel_size == (1, 1)
        and convolution.stride != (1, 1)
        and min(convolution.in_channels, convolution.out_channels) < MIN_CHANNELS_LAST
        for convolution in convolutions
    )
    return len(convolutions) > 1 and not crashes  # a transformer's only convolution makes its patches


SindModel.register_for_auto_class("AutoModel")
