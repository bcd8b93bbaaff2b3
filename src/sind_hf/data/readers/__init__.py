"""Readers of the official downloads of sixteen datasets, and of a user's own study (`folder`)."""

from sind_hf.data.readers.build import READERS, BuildResult, SceneLabels, ScenePicker, build
from sind_hf.data.readers.reader import DatasetNotFoundError, LabelFileError

__all__ = ["READERS", "BuildResult", "DatasetNotFoundError", "LabelFileError", "SceneLabels", "ScenePicker", "build"]
