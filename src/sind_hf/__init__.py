"""SIND: no-reference image quality assessment for Hugging Face transformers.

Importing the package registers its classes, so that `AutoModel`, `AutoImageProcessor` and
`pipeline("image-quality-assessment")` know them.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_sind import SindConfig
from .image_processing_sind import ImageError, SindImageProcessor, load_image
from .modeling_sind import SindModel, SindOutput
from .pipeline_sind import SindPipeline
from .version import __version__

AutoConfig.register("sind", SindConfig, exist_ok=True)
AutoModel.register(SindConfig, SindModel, exist_ok=True)
AutoImageProcessor.register(SindConfig, image_processor_classes={"pil": SindImageProcessor}, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "image-quality-assessment", pipeline_class=SindPipeline, pt_model=AutoModel, type="image"
)

__all__ = [
    "ImageError",
    "SindConfig",
    "SindImageProcessor",
    "SindModel",
    "SindOutput",
    "SindPipeline",
    "__version__",
    "load_image",
]
