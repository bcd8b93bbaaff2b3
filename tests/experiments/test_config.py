from __future__ import annotations

import pytest
import yaml

from sind_hf.experiments.config import config_from_arguments, load_config

BASE = {
    "model": {"backbone": "some/backbone"},
    "data": {"train": ["train.json"], "image_root": "images"},
    "training": {"output_dir": "runs/x", "report_to": "none", "use_cpu": True},
}


def write(folder, document, name="run.yaml"):
    path = folder / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


def with_training(folder, text):
    """A file whose training group ends with lines as a person writes them."""
    return write(folder, yaml.safe_dump(BASE) + "".join(f"  {line}\n" for line in text.splitlines()))


def test_groups_become_their_options(tmp_path):
    run = load_config(write(tmp_path, BASE | {"experiment": {"name": "first"}}))
    assert run.model.backbone == "some/backbone" and run.model.local_branch == "patch"
    assert run.data.train == ["train.json"] and run.data.test == []
    assert run.training.output_dir == "runs/x" and run.training.scene_sampling == 2
    assert run.experiment.name == "first"


def test_groups_may_be_absent_or_empty(tmp_path):
    run = load_config(
        write(tmp_path, "model:\n  checkpoint: x\ndata:\ntraining:\n  report_to: none\n  use_cpu: true\n")
    )
    assert run.data.image_root == "data" and run.experiment.name == "run"


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),  # which YAML 1.1 reads as text
        ("learning_rate: 2", "learning_rate", 2.0),
        ("adam_epsilon: 1e-7", "adam_epsilon", 1e-7),  # of the base class
        ("max_steps: '20'", "max_steps", 20),
        ("warmup_steps: 10", "warmup_steps", 10.0),
        ("num_train_epochs: 3", "num_train_epochs", 3.0),
        ("score_range: [0, 1e2]", "score_range", [0.0, 100.0]),
        ("score_range: null", "score_range", None),
        ("calibrate: no", "calibrate", False),
        ("save_strategy: no", "save_strategy", "no"),  # YAML 1.1 reads no as false
        ("eval_strategy: epoch", "eval_strategy", "epoch"),
        ("seed: 7", "seed", 7),
        ("data_seed: 7", "data_seed", 7),
        ("label_names: labels", "label_names", ["labels"]),
        ("eval_views: center", "eval_views", "center"),
    ],
)
def test_values_are_of_the_options_types(tmp_path, line, name, expected):
    value = getattr(load_config(with_training(tmp_path, line)).training, name)
    value = getattr(value, "value", value)  # of the Trainer's enumerations
    assert value == expected and type(value) is type(expected)


def test_values_on_the_command_line_replace_those_of_the_file(tmp_path):
    path = with_training(tmp_path, "learning_rate: 1e-3")
    overrides = [
        "learning_rate=1e-4",
        "training.scene_sampling=4",
        "save_strategy=no",
        "experiment.name=a=b",
        "data.test=[one.json, two.json]",
        "train=only.json",
        "data.hold_out_scenes=[]",
        "score_range=[1, 5]",
        "lr_ratio=2",
        "lr_ratio=3",
    ]
    run = load_config(path, overrides)
    assert run.training.learning_rate == 1e-4 and run.training.scene_sampling == 4
    assert run.training.score_range == [1.0, 5.0] and run.training.lr_ratio == 3
    assert run.experiment.name == "a=b"
    assert run.data.test == ["one.json", "two.json"] and run.data.train == ["only.json"]
    switched = load_config(path, ["model.backbone=null", "model.vision_config={model_type: resnet}"])
    assert switched.model.vision_config == {"model_type": "resnet"}


def test_the_resolved_configuration_is_read_back_the_same(tmp_path):
    path = with_training(tmp_path, "learning_rate: 1e-3\nsave_strategy: no")
    run = load_config(path, ["lr_ratio=3", "experiment.name=Größe", "score_range=[0, 1e2]"])
    run.save(tmp_path / "resolved.yaml")
    again = load_config(tmp_path / "resolved.yaml")
    assert again.source == run.source
    for group in ("model", "data", "experiment"):
        assert getattr(again, group) == getattr(run, group)
    assert again.training.to_dict() == run.training.to_dict()
    again.save(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "resolved.yaml").read_bytes()
    assert "Größe" in (tmp_path / "resolved.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (BASE | {"trainning": {}}, "unknown group 'trainning'. Did you mean training?"),
        (BASE | {"zzz": {}}, "unknown group 'zzz'. Known: model, data, training, experiment."),
        (BASE | {"model": {"backbon": "x"}}, "model: unknown key 'backbon'. Did you mean backbone?"),
        (
            BASE | {"training": {"learning_rat": 1}},
            "training: unknown key 'learning_rat'. Did you mean learning_rate?",
        ),
        (BASE | {"training": {"scene_samplin": 1}}, "Did you mean scene_sampling?"),
        (BASE | {"data": {1: 2}}, "data: unknown key 1."),
        (BASE | {"data": ["a"]}, "data must hold keys and values"),
        (BASE | {"model": {}}, "give exactly one of backbone, vision_config and checkpoint, none of them is given"),
        (BASE | {"model": {"backbone": "x", "checkpoint": "y"}}, "not backbone and checkpoint"),
        (BASE | {"training": {"learning_rate": "fast"}}, "training: learning_rate is 'fast': expected a number"),
        (BASE | {"training": {"learning_rate": True}}, "learning_rate is True"),
        (BASE | {"training": {"scene_sampling": 2.5}}, "scene_sampling is 2.5"),
        (BASE | {"training": {"adam_beta1": [1]}}, "adam_beta1 is [1]"),
        (BASE | {"training": {"calibrate": "perhaps"}}, "calibrate is 'perhaps'"),
        (BASE | {"training": {"score_range": [0, "high"]}}, "score_range is 'high': expected a number"),
        (BASE | {"training": {"score_range": 5}}, "score_range is 5"),
        (BASE | {"training": {"eval_views": "both"}}, "eval_views is 'both'"),
        (BASE | {"training": {"save_strategy": "sometimes"}}, "sometimes"),
        (BASE | {"training": {"loss_type": "scale_shfit"}}, "training: Unknown loss 'scale_shfit'"),
        (BASE | {"training": {"scene_sampling": 3}}, "the batch size must be a multiple of scene_sampling"),
        (BASE | {"data": {"train": {"a": "b"}}}, "train is {'a': 'b'}"),
        (BASE | {"data": {"train": [1]}}, "train is 1"),
        ("- a\n- b\n", "expected the groups model, data, training, experiment"),
        ("", "expected the groups"),
        ("model: [unclosed\n", "is not YAML"),
        (
            BASE | {"training": {"resume_from_checkpoint": "runs/x"}},
            "resume_from_checkpoint is not supported",
        ),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_place(tmp_path, document, message):
    path = write(tmp_path, document)
    with pytest.raises(ValueError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rate", "overrides are written key=value"),
        ("learnin_rate=1", "unknown key 'learnin_rate'. Did you mean learning_rate?"),
        ("training.learnin_rate=1", "training: unknown key 'learnin_rate'. Did you mean learning_rate?"),
        ("trainin.learning_rate=1", "unknown group 'trainin'. Did you mean training?"),
        ("learning_rate=[1", "'[1' is not a YAML value"),
        ("learning_rate=fast", "learning_rate is 'fast': expected a number"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, override, message):
    with pytest.raises(ValueError) as caught:
        load_config(write(tmp_path, BASE), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "--output_dir", "runs/x"], "no option --output_dir: write training.output_dir=runs/x."),
        (["FILE", "--learning-rate=1e-4"], "no option --learning-rate: write training.learning_rate=1e-4."),
        (["--output_dir", "runs/x", "FILE"], "write training.output_dir=runs/x."),
        (["FILE", "--train", "a.json"], "write data.train=a.json."),
        (["FILE", "--data.train", "a.json"], "no option --data.train: write data.train=a.json."),
        (["FILE", "--fp16", "max_steps=3"], "write training.fp16=VALUE."),
        (["FILE", "--learnin_rate", "1"], "write training.learning_rate=1."),
        (["FILE", "--resum"], "no option --resum: write --resume."),
        (["FILE", "--qqqqq"], "no option --qqqqq: keys of the configuration are written group.key=value"),
        (["max_steps=3"], "name the configuration file (.yaml) first"),
        ([], "name the configuration file (.yaml) first"),
    ],
)
def test_unknown_options_are_answered_with_the_right_form(tmp_path, arguments, message):
    path = write(tmp_path, BASE)
    with pytest.raises(ValueError) as caught:
        config_from_arguments([str(path) if word == "FILE" else word for word in arguments], None, ["--resume"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_configuration_is_the_first_argument_or_an_option(tmp_path):
    path = write(tmp_path, BASE)
    for run in (
        config_from_arguments([str(path), "lr_ratio=3"]),
        config_from_arguments(["lr_ratio=3"], path),
    ):
        assert run.training.lr_ratio == 3


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "absent.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=reason) as caught:
            load_config(path)
        assert str(path) in str(caught.value)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("experiment:\n  name: Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not YAML"):
        load_config(latin)


def test_every_option_explains_itself():
    from dataclasses import fields

    from sind_hf.experiments.config import GROUPS

    for group in ("model", "data", "experiment"):
        assert all(item.metadata["help"].strip() for item in fields(GROUPS[group]))
