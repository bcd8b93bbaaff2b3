"""Configurations of runs: YAML with the groups model, data, training and experiment, parsed into dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from sind_hf.files import read_text, reason, write_text
from sind_hf.training.training_args import SindTrainingArguments


def _option(default: Any, help: str) -> Any:
    """Return the field of an option; `list` and `dict` as a default stand for an empty one."""
    kind = "default_factory" if default in (list, dict) else "default"
    return field(metadata={"help": help}, **{kind: default})


@dataclass
class ModelOptions:
    """Model to start from."""

    backbone: str | None = _option(None, "Vision model to start from: a Hub repository ID or a folder.")
    vision_config: dict[str, Any] | None = _option(
        None, "Configuration of a backbone to train from scratch, with its model_type."
    )
    checkpoint: str | None = _option(None, "SIND checkpoint to start from: a folder, a Hub repository ID, or bundled.")
    local_branch: str = _option("patch", "Local branch: patch, class or none; see SindConfig.")
    view_size: int | None = _option(None, "Side of the views in pixels. Default: the backbone's.")
    freeze_backbone: bool = _option(False, "Train only the head.")
    freeze_batch_norm: bool = _option(False, "Keep the statistics of BatchNorm.")
    resize_backend: str = _option("torch", "Library that resizes images: torch or pillow.")

    def __post_init__(self) -> None:
        given = [name for name in ("backbone", "vision_config", "checkpoint") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "model: give exactly one of backbone, vision_config and checkpoint, "
                + (f"not {' and '.join(given)}." if given else "none of them is given.")
            )


@dataclass
class DataOptions:
    """Datasets to train and to test on."""

    image_root: str = _option("data", "Folder that the manifests' image paths start from.")
    json_dir: str | None = _option(None, "Folder of manifests and folds, in our layout or the published one.")
    train: list[str] = _option(list, "Datasets to train on: manifests (.json), or names of datasets in json_dir.")
    test: list[str] = _option(list, "Datasets to test on, named like those of train.")
    hold_out_scenes: list[str] = _option(list, "Scenes to test on, which are taken out of the training manifests.")
    dataset_domain: bool = _option(False, "Align datasets instead of scenes (SPAQ keeps its scenes).")
    train_lists: dict[str, str] = _option(dict, "Published train list by dataset: Q-Align's JSON, PARA's CSV.")
    test_lists: dict[str, str] = _option(dict, "Published test list by dataset.")
    liqe_splits: str | None = _option(None, "Folder of LIQE's split lists: <set>/<number>/<set>_train_clip.txt.")


PROTOCOLS = ("leave-one-out", "cross-set", "random-split")


@dataclass
class ExperimentOptions:
    """Protocol of an experiment and its folds."""

    name: str = _option("run", "Name in tables and records.")
    protocol: str | None = _option(None, "Protocol: leave-one-out, cross-set or random-split.")
    splits: int = _option(10, "Number of splits to draw in random-split.")
    k_folds: int = _option(0, "Number of folds in random-split, which test on every image once. 0: see splits.")
    split_seed: int = _option(0, "Seed of the splits that are drawn.")
    seeds: list[int] = _option(list, "Seeds; every fold is trained with each. Default: training.seed.")
    folds: list[str] = _option(list, "Names of the folds to run. Default: all.")
    evaluate_every: int | None = _option(
        None, "Epochs between evaluations. 0: never. Default: 1 in cross-set, 5 otherwise."
    )

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {self.protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
        if self.splits < 1 or self.k_folds < 0 or (self.evaluate_every or 0) < 0:
            raise ValueError("splits must be at least 1, and k_folds and evaluate_every must not be negative.")
        if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give whole numbers from 0 on.")


@dataclass
class RunConfig:
    """Configuration of a run: its four groups of options, and the plain values that they were parsed from."""

    model: ModelOptions
    data: DataOptions
    training: SindTrainingArguments
    experiment: ExperimentOptions
    source: dict[str, dict[str, Any]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the resolved configuration as YAML, which `load_config` reads.

        Raises:
            ValueError: If the file cannot be written.
        """
        write_text(path, yaml.safe_dump(self.source, sort_keys=False, allow_unicode=True))


GROUPS: dict[str, type] = {
    "model": ModelOptions,
    "data": DataOptions,
    "training": SindTrainingArguments,
    "experiment": ExperimentOptions,
}


def config_from_arguments(
    arguments: Sequence[str], config: str | os.PathLike[str] | None = None, options: Sequence[str] = ()
) -> RunConfig:
    """Read the configuration that a command line names.

    Args:
        arguments: Configuration file, unless `config` names it, followed by overrides, `key=value`.
        config: Value of the option `--config`.
        options: Options that the command has, for hints at misspelled ones.

    Raises:
        ValueError: If there is no configuration file, or an argument is an unknown option; the message says how to
            write it. Also as `load_config`.
    """
    words = list(arguments)
    for position, word in enumerate(words):
        if word.startswith("-"):
            raise ValueError(_flag_hint(word, words[position + 1 :], options))
    if config is None:
        if not words or "=" in words[0]:
            raise ValueError("name the configuration file (.yaml) first, before any key=value.")
        config = words.pop(0)
    return load_config(config, words)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file.

    Args:
        path: YAML file with the groups model, data, training, experiment.
        overrides: `group.key=value`, or `key=value` if only one group has that key. The value is YAML.

    Raises:
        ValueError: If the file cannot be read, a group or key is unknown (the message names the nearest), or a value
            has a wrong type.
    """
    try:
        document = yaml.safe_load(read_text(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot read this configuration ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML ({reason(error)}).") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected the groups {', '.join(GROUPS)}.")
    for group, values in document.items():
        _check_name(group, GROUPS, str(path), "group")
        if values is not None and not isinstance(values, dict):
            raise ValueError(f"{path}: {group} must hold keys and values.")
    source: dict[str, dict[str, Any]] = {group: dict(document.get(group) or {}) for group in GROUPS}
    for override in overrides:
        group, key, value = _parse_override(override)
        source[group][key] = value
    return parse_config(source, str(path))


def parse_config(source: dict[str, dict[str, Any]], where: str) -> RunConfig:
    """Check plain values by group and key against the options of the groups; error messages begin with `where`.

    Raises:
        ValueError: As `load_config`.
    """
    source = {group: source.get(group, {}) for group in GROUPS}
    parsed, resolved = {}, {}
    for group, options in GROUPS.items():
        for key in source[group]:
            _check_name(key, _keys(options), f"{where}: {group}", "key")
        try:
            # YAML reads 1e-5 as text, and dataclasses check nothing. HfArgumentParser rewrites the fields' own types.
            hints = get_type_hints(options)
            given = {key: _fit(key, value, hints[key]) for key, value in source[group].items()}
            (parsed[group],) = HfArgumentParser(options).parse_dict(given)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {group}: {reason(error)}") from None
        # All of our options, whose defaults may change one day, and those of the Trainer's that were given.
        own = {name: getattr(parsed[group], name) for name in options.__annotations__}
        # The resolved configuration is saved, so it must not contain tokens.
        resolved[group] = {name: value for name, value in (own | given).items() if not name.endswith("_token")}
    if parsed["training"].resume_from_checkpoint is not None:
        raise ValueError(
            f"{where}: training.resume_from_checkpoint is not supported: leave it out, and use `sind-hf train "
            "--resume`, which continues from the last checkpoint in the run folder; `sind-hf experiment` always does."
        )
    return RunConfig(source=resolved, **parsed)


def _fit(key: str, value: Any, hint: Any) -> Any:
    """Convert a plain value to the type of its field."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [get_origin(kind) or kind for kind in kinds]
    classes = tuple(kind for kind in plain if isinstance(kind, type))
    if value is False and bool not in plain and any(issubclass(kind, Enum) and "no" in list(kind) for kind in classes):
        value = "no"  # YAML reads it as false
    elif isinstance(value, str) and str not in plain and list in plain:
        value = [value]
    elif isinstance(value, str) and str not in plain and (float in plain or int in plain):
        try:
            value = float(value) if float in plain else int(value)
        except ValueError:
            raise ValueError(f"{key} is {value!r}: expected a number.") from None
    elif type(value) is int and float in plain and int not in plain:
        value = float(value)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    allowed = (
        Any in plain
        or (type(value) is bool and bool in plain)
        or (type(value) is not bool and isinstance(value, classes))
        or (isinstance(value, str) and any(issubclass(kind, Enum) for kind in classes))
        or value in choices
    )
    if not allowed:
        raise ValueError(f"{key} is {value!r}: expected {choices or getattr(hint, '__name__', hint)}.")
    elements = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
    if isinstance(value, list) and elements:
        return [_fit(key, item, elements[0]) for item in value]
    return value


def _parse_override(override: str) -> tuple[str, str, Any]:
    name, separator, text = override.partition("=")
    if not separator:
        raise ValueError(f"{override!r}: overrides are written key=value.")
    group, dot, key = name.partition(".")
    if not dot:
        key = name
        every = sorted({each for options in GROUPS.values() for each in _keys(options)})
        _check_name(key, every, "command line", "key")
        owners = [each for each, options in GROUPS.items() if key in _keys(options)]
        if len(owners) > 1:
            raise ValueError(f"{override!r}: {' and '.join(owners)} both have {key}; write {owners[0]}.{key}=….")
        group = owners[0]
    _check_name(group, GROUPS, "command line", "group")
    _check_name(key, _keys(GROUPS[group]), f"command line: {group}", "key")
    try:
        return group, key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{override!r}: {text!r} is not a YAML value.") from None


def _flag_hint(flag: str, following: Sequence[str], options: Sequence[str]) -> str:
    """Say how to write an option that is a key of the configuration, or which one was meant."""
    name, equals, value = flag.partition("=")
    if close := difflib.get_close_matches(name, options, n=1):
        return f"there is no option {name}: write {close[0]}."
    key = name.lstrip("-").replace("-", "_").rpartition(".")[2]
    if not equals:
        value = following[0] if following and "=" not in following[0] and following[0][:1] != "-" else "VALUE"
    every = {each: group for group, options_of in GROUPS.items() for each in _keys(options_of)}
    near = difflib.get_close_matches(key, every, n=1)
    if not near:
        return f"there is no option {name}: keys of the configuration are written group.key=value, without dashes."
    return f"there is no option {name}: write {every[near[0]]}.{near[0]}={value}."


def _keys(options: type) -> list[str]:
    return [item.name for item in dataclasses.fields(options) if item.init]


def _check_name(name: Any, known: Sequence[str] | Mapping[str, Any], where: str, kind: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(str(name), list(known), n=1)
        hint = f" Did you mean {close[0]}?" if close else f" Known: {', '.join(known)}." if len(known) < 12 else ""
        raise ValueError(f"{where}: unknown {kind} {name!r}.{hint}")
