"""Register the SIND classes with transformers as soon as a program imports transformers.

transformers and torch take seconds to import, and neither `import sind_hf` nor `sind-hf --help` needs them. So the
import of this package registers nothing where transformers is not imported yet: it watches for that import instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from sind_hf.bundled import bundled_checkpoint

_HUB_FILES = ("configuration_sind", "image_processing_sind", "losses", "modeling_sind", "pipeline_sind")
# `register` imports the Hub files, so it must wait for one of them whose own import started that of transformers.
_WATCHED = frozenset({"transformers", *(f"sind_hf.{name}" for name in _HUB_FILES)})


def register_with_transformers() -> None:
    """Register the classes now if transformers is imported already, else right after its import."""
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _TransformersWatcher())


def _register() -> None:
    """Tell `AutoConfig`, `AutoModel`, `AutoImageProcessor` and `pipeline` about the SIND classes."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from sind_hf.configuration_sind import SindConfig
    from sind_hf.image_processing_sind import SindImageProcessor
    from sind_hf.modeling_sind import SindModel
    from sind_hf.pipeline_sind import SindPipeline

    AutoConfig.register("sind", SindConfig, exist_ok=True)
    AutoModel.register(SindConfig, SindModel, exist_ok=True)
    AutoImageProcessor.register(SindConfig, image_processor_classes={"pil": SindImageProcessor}, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        "image-quality-assessment",
        pipeline_class=SindPipeline,
        pt_model=AutoModel,
        default={"model": (bundled_checkpoint(), "main")},
        type="image",
    )


class _TransformersWatcher(MetaPathFinder):
    """Call `_register` after the import of transformers; the import itself is left to the other finders."""

    def __init__(self) -> None:
        self._running = 0  # imports of watched modules that have not ended

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a watched module as the other finders do, and notice when it has been executed."""
        if fullname not in _WATCHED:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = partial(self._execute, spec.loader.exec_module)  # type: ignore[method-assign]
                return spec
        return None

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        self._running += 1
        try:
            execute(module)
        finally:
            self._running -= 1
        if not self._running and self in sys.meta_path and "transformers" in sys.modules:
            sys.meta_path.remove(self)
            _register()
