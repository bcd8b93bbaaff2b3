"""SIND: no-reference image quality assessment for Hugging Face transformers.

Importing the package registers its classes, so that `AutoModel`, `AutoImageProcessor` and
`pipeline("image-quality-assessment")` know them. What training and data need is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from sind_hf.bundled import bundled_checkpoint
from sind_hf.configuration_sind import SindConfig
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, load_image
from sind_hf.modeling_sind import SindModel, SindOutput
from sind_hf.pipeline_sind import SindPipeline
from sind_hf.version import __version__

if TYPE_CHECKING:
    from sind_hf.calibration import Calibration
    from sind_hf.conversion.convert import convert_checkpoint
    from sind_hf.data.importing.importer import import_manifest
    from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
    from sind_hf.data.prepared.folder import load_prepared
    from sind_hf.data.sampling import SceneBatchSampler, ShuffledBatchSampler
    from sind_hf.data.synthetic.graded import grade, packaged_photographs
    from sind_hf.data.views import ViewDataset
    from sind_hf.experiments.evaluation import evaluate_manifest
    from sind_hf.hub.publish import push_model
    from sind_hf.image_processing_sind import differentiable_views
    from sind_hf.onnx.export import export_onnx
    from sind_hf.scoring.scorer import ScoredImage, score_images
    from sind_hf.training.trainer import SindTrainer
    from sind_hf.training.training_args import SindTrainingArguments

_ON_FIRST_USE = {
    "Calibration": "calibration",
    "Manifest": "data.manifests.manifest",
    "ManifestEntry": "data.manifests.manifest",
    "SceneBatchSampler": "data.sampling",
    "ScoreInfo": "data.manifests.manifest",
    "ScoredImage": "scoring.scorer",
    "ShuffledBatchSampler": "data.sampling",
    "SindTrainer": "training.trainer",
    "SindTrainingArguments": "training.training_args",
    "ViewDataset": "data.views",
    "differentiable_views": "image_processing_sind",
    "convert_checkpoint": "conversion.convert",
    "evaluate_manifest": "experiments.evaluation",
    "export_onnx": "onnx.export",
    "grade": "data.synthetic.graded",
    "import_manifest": "data.importing.importer",
    "load_prepared": "data.prepared.folder",
    "packaged_photographs": "data.synthetic.graded",
    "push_model": "hub.publish",
    "score_images": "scoring.scorer",
}

AutoConfig.register("sind", SindConfig, exist_ok=True)
AutoModel.register(SindConfig, SindModel, exist_ok=True)
AutoImageProcessor.register(SindConfig, image_processor_classes={"pil": SindImageProcessor}, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "image-quality-assessment", pipeline_class=SindPipeline, pt_model=AutoModel, type="image"
)

__all__ = [
    "Calibration",
    "ImageError",
    "Manifest",
    "ManifestEntry",
    "SceneBatchSampler",
    "ScoreInfo",
    "ScoredImage",
    "ShuffledBatchSampler",
    "SindConfig",
    "SindImageProcessor",
    "SindModel",
    "SindOutput",
    "SindPipeline",
    "SindTrainer",
    "SindTrainingArguments",
    "ViewDataset",
    "__version__",
    "bundled_checkpoint",
    "convert_checkpoint",
    "differentiable_views",
    "evaluate_manifest",
    "export_onnx",
    "grade",
    "import_manifest",
    "load_image",
    "load_prepared",
    "packaged_photographs",
    "push_model",
    "score_images",
]


def __getattr__(name: str) -> object:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ON_FIRST_USE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
