"""Readers of the official downloads of sixteen datasets, and of an own study (`folder`)."""

from .build import READERS, BuildResult, build
from .download import DatasetNotFoundError, LabelFileError
from .scene_choice import SceneLabels, ScenePicker

__all__ = ["READERS", "BuildResult", "DatasetNotFoundError", "LabelFileError", "SceneLabels", "ScenePicker", "build"]
