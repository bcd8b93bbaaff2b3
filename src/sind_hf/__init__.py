"""SIND: no-reference image quality assessment for Hugging Face transformers.

The import of this package takes milliseconds: every name below is imported on first use. `AutoModel`,
`AutoImageProcessor` and `pipeline("image-quality-assessment")` know the SIND classes from then on.
"""

import importlib
from typing import TYPE_CHECKING

from sind_hf.bundled import CheckpointInfo, bundled_checkpoint, list_checkpoints
from sind_hf.registration import register_with_transformers

__version__ = "0.1.0"  # the one place that names it

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

_NAMES_IN = {
    "calibration": ("Calibration",),
    "checkpoints": ("load", "score"),
    "configuration_sind": ("SindConfig",),
    "conversion.convert": ("convert_checkpoint",),
    "data.importing.importer": ("import_manifest",),
    "data.manifests.manifest": ("Manifest", "ManifestEntry", "ScoreInfo"),
    "data.prepared.folder": ("load_prepared",),
    "data.sampling": ("SceneBatchSampler", "ShuffledBatchSampler"),
    "data.synthetic": ("grade", "packaged_photographs"),
    "data.views": ("ViewDataset",),
    "experiments.evaluation": ("evaluate_manifest",),
    "hub.publish": ("push_model",),
    "image_processing_sind": ("ImageError", "SindImageProcessor", "differentiable_views", "load_image"),
    "modeling_sind": ("SindModel", "SindOutput"),
    "onnx.export": ("export_onnx",),
    "pipeline_sind": ("SindPipeline",),
    "scoring.scorer": ("ScoredImage", "score_images"),
    "training.trainer": ("SindTrainer",),
    "training.training_args": ("SindTrainingArguments",),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}
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
