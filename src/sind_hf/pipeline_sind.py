"""The `image-quality-assessment` pipeline of transformers."""

from __future__ import annotations

from collections.abc import Sized
from difflib import get_close_matches
from itertools import chain
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import ModelOutput

OPTIONS = ("views", "output_quality_map", "batch_size", "num_workers")


class SindPipeline(Pipeline):
    """Score images: `pipeline("image-quality-assessment", model=..., image_processor=...)`.

    Without a model it uses the bundled checkpoint. Call it with one image or several, as `SindModel.score`.
    Options are `views="nine"` (slower, steadier) and `output_quality_map=True`. Each answer is a dict with `score`,
    `score_range` (or None), `higher_is_better` (always True) and, when asked for, `quality_map` (7 lists of 7
    numbers).

    Example:
        >>> from sind_hf import SindConfig, SindImageProcessor, SindModel, SindPipeline
        >>> from PIL import Image
        >>> tiny = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        >>> pipe = SindPipeline(model=SindModel(SindConfig(vision_config=tiny)), image_processor=SindImageProcessor())
        >>> sorted(pipe(Image.new("RGB", (320, 240))))
        ['higher_is_better', 'score', 'score_range']
    """

    image_processor: Any
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = True  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __call__(self, images: Any, **options: Any) -> Any:
        """Score one image or several.

        Args:
            images: One image, or a collection of images with a length (list, tuple, column, dataset, array, tensor),
                or a stream of them (generator, streamed dataset, dataset of torch).
            **options: `views`, `output_quality_map`, `batch_size`, `num_workers`.

        Returns:
            One answer for one image, a list for a collection, an iterator for a stream, which is read as answers are
            taken.

        Raises:
            TypeError: On an unknown option.
            ValueError: On an unusable value, or when an image cannot be read (`ImageError`).
        """
        self._sanitize_parameters(**{name: value for name, value in options.items() if name not in OPTIONS[2:]})
        # A streamed dataset of Hugging Face is a dataset of torch, too, but its rows are not images.
        of_torch = isinstance(images, Dataset) and not hasattr(images, "column_names")
        if of_torch or (isinstance(images, list) and images):
            return super().__call__(images, **options)
        stream = self.image_processor.each_image(images)
        first = next(stream, None)
        if first is images:
            return super().__call__(images, **options)
        if first is None:
            return [] if isinstance(images, Sized) else iter(())
        # A generator is all that the base class reads step by step.
        answers = super().__call__((image for image in chain([first], stream)), **options)
        return list(answers) if isinstance(images, Sized) else answers

    def _sanitize_parameters(
        self, views: str | None = None, output_quality_map: bool | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name in kwargs:
            near = get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(OPTIONS)}."
            raise TypeError(f"Unknown option {name!r}: {hint}")
        preprocess = {} if views is None else {"views": views}
        forward = {} if output_quality_map is None else {"output_quality_map": output_quality_map}
        return preprocess, forward, {}

    def preprocess(self, image: Any, views: str | None = None) -> dict[str, Any]:
        """Make the views of one image, (1, T, 3, s, s): the base class joins only 5-D tensors without loss."""
        options = {} if views is None else {"views": views}
        inputs = self.image_processor(image, return_tensors="pt", **options)
        return {name: value if value.ndim == 5 else value[:, None] for name, value in inputs.items()}

    def _forward(self, inputs: dict[str, Any], output_quality_map: bool = False) -> ModelOutput:
        output = self.model(**inputs, output_quality_map=output_quality_map)
        # Only what postprocess reads: every tensor here is split per image.
        return ModelOutput(
            {name: output[name].cpu() for name in ("quality", "quality_map") if output.get(name) is not None}
        )

    def postprocess(self, output: ModelOutput) -> dict[str, Any]:
        """Turn the tensors of one image into plain numbers."""
        score_range = self.model.config.score_range
        answer = {
            "score": output["quality"].reshape(()).item(),
            "score_range": None if score_range is None else list(score_range),
            "higher_is_better": True,
        }
        if "quality_map" in output:
            answer["quality_map"] = output["quality_map"].squeeze(0).tolist()
        return answer
