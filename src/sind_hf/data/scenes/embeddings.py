"""Embeddings of images by a CLIP model or by the backbone of a SIND model, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BaseImageProcessor, CLIPModel

from sind_hf.checkpoints import default_device
from sind_hf.data.manifests.validation import link_fault
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import reason
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, load_image, printable
from sind_hf.modeling_sind import SindModel

Embeddings = npt.NDArray[np.float32]


class ImageEncoder(Protocol):
    """Turns images into vectors of length 1.

    Attributes:
        prepare: Function that loads one image as the model's input, without the batch dimension. It runs in the
            loader's processes. It is not a method, because a method would be sent there with the model.
    """

    prepare: Callable[[Path], Tensor]

    def embed(self, batch: Tensor) -> Embeddings:
        """Embed a batch of such inputs: (B, D), rows of length 1."""
        ...


class ClipEncoder:
    """A CLIP model of transformers, for images and for words.

    Args:
        path: Folder or Hub repository ID with the model, its tokenizer and its image processor.
        device: Device to run on. Default: the first accelerator, else the CPU.

    Raises:
        ValueError: If there is no such checkpoint, a part of it is missing, or it is not a CLIP model.
    """

    def __init__(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        self.path = str(path)
        try:
            kind = AutoConfig.from_pretrained(path).model_type
            if kind != "clip":
                raise ValueError(f"it is a model of kind {kind!r}, not 'clip'")
            self.model = CLIPModel.from_pretrained(path).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(path)
            # The Pillow backend needs no torchvision and gives the same pixels on every device.
            images = AutoImageProcessor.from_pretrained(path, backend="pil")
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ValueError(f"{path}: cannot load this CLIP model ({reason(error)}).") from None
        self.prepare: Callable[[Path], Tensor] = partial(_clip_input, images)
        self.model.to(device or default_device())

    @property
    def revision(self) -> str | None:
        """Commit of the model's Hub repository; None for a folder."""
        return getattr(self.model.config, "_commit_hash", None)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Embeddings:
        """Embed images in the space that they share with words."""
        return _unit(self.model.get_image_features(pixel_values=batch.to(self.model.device)).pooler_output)

    @torch.inference_mode()
    def embed_words(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: (number of texts, D), rows of length 1."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        return _unit(self.model.get_text_features(**tokens).pooler_output)


class SindEncoder:
    """The global embedding of a SIND model with any backbone."""

    def __init__(self, model: SindModel, processor: SindImageProcessor) -> None:
        self.model = model.eval()
        self.prepare: Callable[[Path], Tensor] = partial(_center_views, processor)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Embeddings:
        """Embed the global views."""
        views = batch.to(self.model.device)
        return _unit(self.model(views[:, 0], views[:, 1]).global_embeds)


def _clip_input(image_processor: BaseImageProcessor, path: Path) -> Tensor:
    """Return one image, (3, H, W), resized and normalized for the model."""
    return image_processor(load_image(path), return_tensors="pt")["pixel_values"][0]


def _center_views(processor: SindImageProcessor, path: Path) -> Tensor:
    """Return the two center views of one image, (2, 3, s, s), uint8."""
    return torch.from_numpy(np.concatenate(processor.make_views(path, "center")))


def _unit(vectors: Tensor) -> Embeddings:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def embed_images(
    encoder: ImageEncoder,
    image_root: Path,
    images: Sequence[str],
    *,
    batch_size: int = 32,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    follow_links: bool = True,
) -> Iterator[tuple[list[str], Embeddings, list[tuple[str, str]]]]:
    """Embed images batch by batch; see `label_scenes` for the arguments.

    Yields:
        The images of a batch that could be read, their embeddings (B, D), and (image, reason) of the others.
    """
    loader = DataLoader(
        _Inputs(encoder, image_root, images, follow_links), batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    done = 0
    with worker_deaths_named("what was read so far is in the cache, if one was named"):
        for batch in loader:
            good, inputs, failures = [], [], []
            for image, item in zip(images[done : done + len(batch)], batch, strict=True):
                if isinstance(item, str):
                    failures.append((image, item))
                else:
                    good.append(image)
                    inputs.append(item)
            done += len(batch)
            yield good, encoder.embed(torch.stack(inputs)) if good else np.empty((0, 0), np.float32), failures
            if progress is not None:
                progress(done, len(images))


class _Inputs(TorchDataset):
    """The model's input for each image, or the reason why it cannot be read."""

    def __init__(self, encoder: ImageEncoder, image_root: Path, images: Sequence[str], follow_links: bool) -> None:
        self.prepare, self.image_root, self.images = encoder.prepare, image_root.resolve(), images
        self.follow_links = follow_links
        self._inside: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | str:
        path = self.image_root / self.images[index]
        if not self.follow_links and (fault := link_fault(self.image_root, self.images[index], self._inside)):
            return fault
        try:
            return self.prepare(path)
        except ImageError as error:
            return str(error).removeprefix(f"{printable(path)}: ")
