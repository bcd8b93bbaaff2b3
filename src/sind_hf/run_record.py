"""The record of a run: what `sind-hf train` and every fold of an experiment write beside their checkpoint.

`config.yaml` holds the resolved configuration: the groups `model`, `data`, `training` and `experiment`, each with keys
and values. `results.json` is written last, so a run folder that has one is finished. Its fields:

    name, seed                      name of the experiment, and seed of the training
    metrics                         metrics of every test set, by name; null if a metric is not defined
    before_training                 the same of the model before the training; `sind-hf train` only
    tests                           by test set: metrics by scene, 95 % intervals, accuracy of pairs
    history                         `loss`: the logs of the training; `tests`: SRCC and PLCC by epoch
    best_epoch_chosen_on_test_set   epoch of the highest SRCC of every test set; this is no result
    train_images, test_images       number of images of every dataset
    epochs, steps, processes, seconds, resumed_from, git_revision, versions
    config                          content of `config.yaml`
    protocol, fold, position, trained_on, sides_from    folds of an experiment only
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from sind_hf.files import read_text, reason

RESULTS = "results.json"
CONFIG = "config.yaml"


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read `results.json` of a run folder.

    Returns:
        The record; None if there is no such file.

    Raises:
        ValueError: If the file cannot be read or is not the record of a run.
    """
    path = Path(folder) / RESULTS
    if not path.exists():
        return None
    try:
        record = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot read this run record ({error}); repair or remove it.") from None
    parts = ("metrics", "config", "train_images")
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in parts):
        raise ValueError(f"{path}: is not the record of a run; move it to another folder.")
    return record


def read_config(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]] | None:
    """Read `config.yaml` of a run folder.

    Returns:
        Values by group and key; None if there is no such file.

    Raises:
        ValueError: If the file cannot be read or is not the configuration of a run.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        return None
    try:
        groups = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot read this configuration ({reason(error)}); repair or remove it.") from None
    if not isinstance(groups, dict) or not all(isinstance(group, dict | None) for group in groups.values()):
        raise ValueError(f"{path}: is not the configuration of a run; move it to another folder.")
    return {name: dict(values or {}) for name, values in groups.items()}
