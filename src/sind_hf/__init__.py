"""SIND: no-reference image quality assessment for Hugging Face transformers.

The import of this package takes milliseconds: every name below is imported on first use. `AutoModel`,
`AutoImageProcessor` and `pipeline("image-quality-assessment")` know the SIND classes from then on.
"""

import importlib
from typing import TYPE_CHECKING

from sind_hf.bundled import CheckpointInfo, bundled_checkpoint, list_checkpoints
from sind_hf.registration import register_with_transformers
from sind_hf.version import __version__

if TYPE_CHECKING:
    from sind_hf.calibration import Calibration
    from sind_hf.checkpoints import load, score
    from sind_hf.configuration_sind import SindConfig
    from sind_hf.conversion.convert import convert_checkpoint
    from sind_hf.data.importing.importer import import_manifest
    from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
    from sind_hf.data.prepared.folder import load_prepared
    from sind_hf.data.sampling import SceneBatchSampler, ShuffledBatchSampler
    from sind_hf.data.synthetic import grade, packaged_photographs
    from sind_hf.data.views import ViewDataset
    from sind_hf.experiments.evaluation import evaluate_manifest
    from sind_hf.hub.publish import push_model
    from sind_hf.image_processing_sind import ImageError, SindImageProcessor, differentiable_views, load_image
    from sind_hf.modeling_sind import SindModel, SindOutput
    from sind_hf.onnx.export import export_onnx
    from sind_hf.pipeline_sind import SindPipeline
    from sind_hf.scoring.scorer import ScoredImage, score_images
    from sind_hf.training.trainer import SindTrainer
    from sind_hf.training.training_args import SindTrainingArguments

_MODULE_OF = {
    "Calibration": "calibration",
    "ImageError": "image_processing_sind",
    "Manifest": "data.manifests.manifest",
    "ManifestEntry": "data.manifests.manifest",
    "SceneBatchSampler": "data.sampling",
    "ScoreInfo": "data.manifests.manifest",
    "ScoredImage": "scoring.scorer",
    "ShuffledBatchSampler": "data.sampling",
    "SindConfig": "configuration_sind",
    "SindImageProcessor": "image_processing_sind",
    "SindModel": "modeling_sind",
    "SindOutput": "modeling_sind",
    "SindPipeline": "pipeline_sind",
    "SindTrainer": "training.trainer",
    "SindTrainingArguments": "training.training_args",
    "ViewDataset": "data.views",
    "convert_checkpoint": "conversion.convert",
    "differentiable_views": "image_processing_sind",
    "evaluate_manifest": "experiments.evaluation",
    "export_onnx": "onnx.export",
    "grade": "data.synthetic",
    "import_manifest": "data.importing.importer",
    "load": "checkpoints",
    "load_image": "image_processing_sind",
    "load_prepared": "data.prepared.folder",
    "packaged_photographs": "data.synthetic",
    "push_model": "hub.publish",
    "score": "checkpoints",
    "score_images": "scoring.scorer",
}
# Modules that are attributes of the package without an import of their own, as in `sind_hf.losses.by_scene`.
_MODULES = ("image_processing_sind", "losses", "metrics", "metrics_torch", "modeling_sind")

__all__ = [
    "Calibration",
    "CheckpointInfo",
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
    "list_checkpoints",
    "load",
    "load_image",
    "load_prepared",
    "packaged_photographs",
    "push_model",
    "score",
    "score_images",
]

register_with_transformers()


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
