from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from run_folders import METRICS, SECRETS, make_record, make_run

from sind_hf import SindModel, bundled_checkpoint
from sind_hf.hub.model_card import MARKER, Example, is_ours, model_card, write_card
from sind_hf.hub.model_card import METRICS as SHOWN
from sind_hf.hub.model_facts import ModelFacts, SetResult, describe_start, facts_from_folder, without_paths

REPO = "user/sind-clip-vit-b16-koniq10k"


def card_of(folder: Path, **options: object) -> ModelCard:
    return model_card(facts_from_folder(folder), REPO, **options)  # type: ignore[arg-type]


def check_offline(card: ModelCard) -> dict[str, object]:
    """What can be checked without a Hub: the text is YAML and Markdown, and reads back as what was written."""
    text = str(card)
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert match
    metadata = yaml.safe_load(match[1])
    again = ModelCard(text)
    assert again.data.to_dict() == card.data.to_dict() == metadata
    assert again.text.strip() == text[match.end() :].strip()
    assert "None" not in text and "{{" not in text and "{%" not in text and "\n\n\n" not in again.text.strip()
    return metadata


def section(card: ModelCard, title: str) -> str:
    return re.split(rf"^## {title}$", str(card.text), flags=re.MULTILINE)[1].split("\n## ")[0]


def test_the_model_index_holds_the_metrics_of_the_record(checkpoint: Path) -> None:
    card = card_of(make_run(checkpoint), license="mit")
    metadata = check_offline(card)
    results = ModelCard(str(card)).data.eval_results
    assert results is not None
    found: dict[str, dict[str, float]] = {}
    for result in results:
        assert result.task_type == "image-quality-assessment" and result.dataset_split == "test"
        assert result.metric_name == SHOWN[result.metric_type]
        found.setdefault(result.dataset_name, {})[result.metric_type] = result.metric_value
    recorded = make_record()["metrics"]
    assert found == {
        name: {metric: values[metric] for metric in SHOWN if values.get(metric) is not None}
        for name, values in recorded.items()
    }
    assert "within_scene_plcc" not in found["koniq10k_held_out"] and "runtime" not in found["koniq10k_held_out"]
    about = results[0].dataset_args
    assert about == {
        "protocol": "single run",
        "part": "scenes held out of training: Animal, Plant: tall",
        "images": 2015,
        "views": "nine",
    }
    assert metadata["license"] == "mit" and metadata["library_name"] == "transformers"
    assert metadata["base_model"] == "openai/clip-vit-base-patch16" and metadata["datasets"] == ["koniq10k"]


def test_the_card_says_what_the_record_says(checkpoint: Path) -> None:
    card = card_of(make_run(checkpoint))
    evaluation = section(card, "Evaluation")
    row = "| koniq10k_held_out | 2,015 | 0.812 | 0.793 | 0.621 | 8.750 | 0.700 | not defined |"
    assert row in evaluation.splitlines()
    assert METRICS["krcc"] == 0.6214 and "held out of training: Animal, Plant: tall" in evaluation
    assert "single run; nine pairs of views" in evaluation
    training = section(card, "Training")
    for line in (
        "| training data | koniq10k (8,058 images) |",
        "| started from | the backbone openai/clip-vit-base-patch16 |",
        "| loss | `scale_shift` |",
        "| scene sampling | 2 scenes per batch; the loss is computed within each |",
        "| optimizer steps | 4400 |",
        "| seed | 3 |",
    ):
        assert line in training.splitlines()
    scores = section(card, "Scores")
    assert "| direction | higher is better, always |" in scores and "| range | 0 to 100 |" in scores
    assert "| calibration | score = 10 · raw + 50 |" in scores
    assert "No license of the weights is declared" in section(card, "License")
    assert "KonIQ-10k" in section(card, "License")
    assert "@article{sind2025" in section(card, "Citation")
    assert "aligned the scores of every scene" in section(card, "Intended use and limits")
    assert "Made with sind_hf 0.1.0, torch 2.13.0." in str(card)


def test_results_carry_intervals_and_the_start_checkpoints_values(checkpoint: Path) -> None:
    small = {"srcc": 0.8125, "plcc": 0.7931, "krcc": None}
    record = {
        "metrics": {"study": small, "koniq10k": {"srcc": 0.8125}},
        "test_images": {"study": 12, "koniq10k": 100},
        "tests": {"study": {"interval": {"srcc": [0.512, 0.948], "plcc": [None, None]}}},
        "before_training": {"study": {"srcc": 0.25, "plcc": 0.301, "krcc": 0.2}},
    }
    card = card_of(make_run(checkpoint, **record))
    check_offline(card)
    evaluation = section(card, "Evaluation")
    rows = [line for line in evaluation.splitlines() if line.startswith(("| study", "| koniq10k"))]
    assert rows == [
        "| study | 12 | 0.81 (0.51 to 0.95) | 0.79 | not defined |",
        "| study, before training | 12 | 0.25 | 0.30 | 0.20 |",
        "| koniq10k | 100 | 0.812 |  |  |",
    ]
    assert "95 % bootstrap intervals" in evaluation and "the checkpoint that training started from" in evaluation
    assert "> **Few test images.** study has only 12 test images." in evaluation
    assert evaluation.count("Few test images") == 1


def test_thirty_test_images_are_enough_for_no_warning(checkpoint: Path) -> None:
    for images, warned in ((29, True), (30, False), (None, False)):
        tests = (SetResult("study", {"srcc": 0.5}, images),)
        card = str(model_card(ModelFacts({}, tests=tests), REPO))
        assert ("Few test images" in card) == warned
        assert "before training" not in card and "bootstrap" not in card


def test_the_card_names_the_size_of_the_model(checkpoint: Path) -> None:
    model = SindModel.from_pretrained(checkpoint)
    facts = facts_from_folder(checkpoint)
    assert facts.parameters == model.num_parameters()
    assert facts.file_size == (checkpoint / "model.safetensors").stat().st_size
    card = str(model_card(replace(facts, parameters=3_400_000, file_size=6_931_122), REPO))
    assert "3.4 million parameters, 6.9 MB of weights." in card and "pip install sind-hf" in card


def test_an_example_is_shown_with_its_score() -> None:
    config = {"score_range": [1, 5]}
    example = Example("figures/example.jpg", 3.518, "photograph: A. Nyone, CC0")
    card = str(model_card(ModelFacts(config), REPO, example=example))
    assert "![Example image](figures/example.jpg)" in card
    assert "gives this image **3.52** on its scale of 1 to 5. (photograph: A. Nyone, CC0)" in card
    assert "Example image" not in str(model_card(ModelFacts(config), REPO))


def test_the_base_model_of_a_local_start_is_that_of_its_card(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    assert describe_start(str(start), "the SIND checkpoint") == ("the SIND checkpoint in a local folder, start", None)
    (start / "README.md").write_text("---\nbase_model: openai/clip-vit-base-patch16\n---\nText.\n")
    assert describe_start(str(start), "the SIND checkpoint")[1] == "openai/clip-vit-base-patch16"
    for name in ("bundled", bundled_checkpoint()):
        assert describe_start(name, "the SIND checkpoint") == ("the checkpoint that is bundled with sind-hf", None)


def test_folds_name_their_protocol_and_no_path_of_the_machine(checkpoint: Path) -> None:
    fold = {
        "protocol": "leave-one-out",
        "fold": "test_for_300_Animal",
        "metrics": {"koniq10k": dict(METRICS)},
        "test_images": {"koniq10k": 100},
        "sides_from": {"koniq10k": "folds in /home/somebody/data json"},
    }
    card = card_of(make_run(checkpoint, **fold))
    check_offline(card)
    assert "Protocol: leave-one-out, fold test_for_300_Animal" in section(card, "Evaluation")
    assert "koniq10k: test side of the fold test_for_300_Animal (folds in data json)" in section(card, "Evaluation")
    assert all(secret not in str(card) for secret in SECRETS)


def test_without_a_record_the_card_says_what_is_unknown(checkpoint: Path) -> None:
    card = card_of(checkpoint)
    metadata = check_offline(card)
    assert not {"model-index", "license", "base_model", "datasets", "metrics", "model_name"} & set(metadata)
    assert section(card, "Evaluation").strip().startswith("Unknown: nothing beside the weights")
    assert section(card, "Training").strip().startswith("Unknown: nothing beside the weights")
    assert "| range | 0 to 100 |" in section(card, "Scores")  # the configuration is always there
    assert "![" not in str(card)


def test_a_run_without_a_record_says_how_it_was_to_be_trained(checkpoint: Path) -> None:
    config = make_record()["config"]
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    card = card_of(checkpoint)
    check_offline(card)
    assert section(card, "Evaluation").strip().startswith("Unknown")
    training = section(card, "Training")
    assert "| training data | not on record |" in training and "| loss | `scale_shift` |" in training
    assert "| started from | the backbone openai/clip-vit-base-patch16 |" in training
    assert all(secret not in str(card) for secret in SECRETS)
    for text in ("- a", "a: 1", "{"):
        (checkpoint / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml: (is not the configuration|cannot read this)") as error:
            facts_from_folder(checkpoint)
        assert "\n" not in str(error.value)


def test_a_fresh_models_scores_are_raw_and_on_no_scale(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"score_range": None, "score_scale": 1.0, "score_shift": 0.0, "local_branch": "none"}
    card = model_card(ModelFacts(config), REPO)
    scores = section(card, "Scores")
    assert "| range | none declared |" in scores and "the network's raw output" in scores
    assert "| quality maps | none |" in scores and "fragments" not in scores
    assert "on no declared scale" in section(card, "Intended use and limits")


WICKED = "évil: 'name' | - \"x\"\n---\n# injected\n{{ 7 * 7 }} <script> [a](b) `c` *d* #e \t!!python/object"


def test_names_of_users_are_data_in_yaml_and_text_in_markdown() -> None:
    tests = (SetResult(WICKED, {"srcc": 0.5, "rmse": 1.0}), SetResult("évil name", {"srcc": 0.25}, part=WICKED))
    facts = ModelFacts({}, tests=tests, trained_on={WICKED: 3}, start=WICKED, protocol=WICKED, fold=WICKED)
    card = model_card(facts, REPO)
    results = ModelCard(str(card)).data.eval_results
    assert results is not None
    assert [(result.dataset_name, result.metric_type, result.metric_value) for result in results] == [
        (WICKED, "srcc", 0.5),
        (WICKED, "rmse", 1.0),
        ("évil name", "srcc", 0.25),
    ]
    assert all(re.fullmatch(r"[\w.-]+", result.dataset_type, re.ASCII) for result in results)
    assert "\n# injected" not in card.text and "49" not in card.text
    assert "\\<script>" in card.text and " <script>" not in card.text
    (row,) = [line for line in card.text.splitlines() if line.startswith("| évil: ")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5  # four cells: the bar in the name does not make a fifth


def test_sets_whose_names_look_alike_stay_apart() -> None:
    values = {"set one": 0.5, "set/one": 0.25, "数据": 0}
    tests = tuple(SetResult(name, {"srcc": value}) for name, value in values.items())
    results = ModelCard(str(model_card(ModelFacts({}, tests=tests), REPO))).data.eval_results
    assert results is not None
    assert {result.dataset_name: result.metric_value for result in results} == values


def test_a_local_backbone_is_named_by_its_last_part(checkpoint: Path) -> None:
    record = make_record()
    record["config"]["model"] = {"backbone": "/home/somebody/models/my clip"}
    facts = facts_from_folder(make_run(checkpoint, config=record["config"]))
    assert (facts.start, facts.base_model) == ("the backbone in a local folder, my clip", None)


def test_paths_in_a_text_become_names() -> None:
    assert without_paths(r"lists /a/b.json and C:\data\c.csv of ~/d") == "lists b.json and c.csv of d"
    assert without_paths("in /a b/c d, too", {"x": ["/a b/c d"]}) == "in c d, too"
    assert without_paths("drawn with seed 0, 70/10/20") == "drawn with seed 0, 70/10/20"


def test_a_card_of_the_user_is_never_written_over(checkpoint: Path) -> None:
    card = card_of(checkpoint)
    assert write_card(card, checkpoint) and is_ours((checkpoint / "README.md").read_text())
    other = model_card(replace(facts_from_folder(checkpoint), start="something else"), "user/other")
    assert write_card(other, checkpoint) and "user/other" in (checkpoint / "README.md").read_text()
    own = (checkpoint / "README.md").read_text().replace(MARKER, "")
    (checkpoint / "README.md").write_text(own)
    assert not write_card(card, checkpoint)
    assert (checkpoint / "README.md").read_text() == own


@pytest.mark.parametrize("text", ["{", "[]", '{"metrics": {}}', '{"metrics": 1, "config": {}, "train_images": {}}'])
def test_a_damaged_record_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: (is not the record|cannot read this)") as error:
        facts_from_folder(checkpoint)
    assert "\n" not in str(error.value)
