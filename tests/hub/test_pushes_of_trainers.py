"""What a trainer sends to the Hub: while it trains, at the end, and when the Hub does not want it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hub_server import WRITER, Hub
from huggingface_hub import ModelCard

from helpers.tiny_training import make_arguments, make_images, make_trainer
from sind_hf import Manifest, ManifestEntry, ScoreInfo
from sind_hf.experiments.config import load_config
from sind_hf.experiments.runner import run_training
from sind_hf.hub.model_card import MARKER

# Twelve images and four steps are too few for curves and for scores that rise with the opinions.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning"),
    pytest.mark.filterwarnings("ignore::sind_hf.calibration.CalibrationWarning"),
]
REPO = "user/run"
CODE = {"configuration_sind.py", "modeling_sind.py", "image_processing_sind.py", "pipeline_sind.py", "losses.py"}
ESSENTIAL = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} | CODE
# A training of four steps that saves, evaluates and, where asked to, pushes after every second one.
IN_STEPS: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
TESTED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2}
PUSHED: dict[str, Any] = {"push_to_hub": True, "hub_model_id": REPO, "hub_always_push": True}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_images(tmp_path_factory.mktemp("images"), 12)


def messages(hub: Hub) -> list[str]:
    return [commit.message for commit in hub.repositories[REPO].history()]


def results_of(card: bytes) -> dict[tuple[str, str], float]:
    results = ModelCard(card.decode()).data.eval_results or ()
    return {(result.dataset_name, result.metric_type): result.metric_value for result in results}


def test_every_save_is_pushed_with_its_code(hub: Hub, tmp_path: Path, images: Dataset) -> None:
    trainer = make_trainer(
        tmp_path / "run", images, eval_dataset={"study": images}, hub_strategy="every_save",
        **IN_STEPS, **TESTED, **PUSHED,
    )  # fmt: skip
    trainer.train()
    assert messages(hub) == ["Training in progress, step 4", "Training in progress, step 2", "initial commit"]
    for commit, step in zip(hub.repositories[REPO].history(), (4, 2), strict=False):
        assert set(commit.files) - {".gitattributes"} == ESSENTIAL
        saved = tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors"
        assert commit.files["model.safetensors"].content == saved.read_bytes()
        card = commit.files["README.md"].content
        logged = next(entry for entry in trainer.state.log_history if entry["step"] == step)
        assert results_of(card)["study", "srcc"] == logged["eval_study_srcc"]
        assert f"| optimizer steps | {step} |" in card.decode() and "| scene sampling | 2 scenes" in card.decode()
    assert not list((tmp_path / "run").glob(".push-*"))
    trainer.push_to_hub()  # the same weights and the same card: no empty commit
    assert len(messages(hub)) == 3
    trainer.push_to_hub("With a license", license="mit")
    assert messages(hub)[0] == "With a license"
    assert set(hub.files(REPO)) - {".gitattributes"} == ESSENTIAL
    assert (tmp_path / "run" / "training_args.bin").is_file()


def test_at_the_end_means_once(hub: Hub, tmp_path: Path, images: Dataset) -> None:
    trainer = make_trainer(tmp_path / "run", images, hub_strategy="end", hub_private_repo=True, **IN_STEPS, **PUSHED)
    trainer.train()
    assert messages(hub) == ["initial commit"] and hub.repositories[REPO].private
    trainer.save_model()
    assert messages(hub) == ["Model save", "initial commit"]
    assert set(hub.files(REPO)) - {".gitattributes"} == ESSENTIAL


def test_training_outlives_a_push_that_fails(
    hub: Hub, tmp_path: Path, images: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path / "run", images, hub_token=WRITER, **IN_STEPS, **PUSHED)
    hub.failures["put"] = 500
    trainer.train()
    assert trainer.state.global_step == 4 and messages(hub) == ["initial commit"]
    failed = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in failed if text.startswith(("not pushed after step 2: ", "not pushed after step 4: "))]
    assert WRITER not in caplog.text
    with pytest.raises(ValueError, match=r"could not take the upload \(500\).* is as it was; push again") as error:
        trainer.push_to_hub()
    assert WRITER not in str(error.value) and "\n" not in str(error.value)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= ESSENTIAL
    hub.failures.clear()
    trainer.push_to_hub(blocking=False).result()  # type: ignore[union-attr]
    assert messages(hub) == ["End of training", "initial commit"]


def test_a_trainer_does_not_start_where_it_may_not_push(hub: Hub, tmp_path: Path, images: Dataset) -> None:
    with pytest.raises(ValueError, match=r"lab/run: the token may not write there \(403\)"):
        make_trainer(tmp_path / "run", images, **IN_STEPS, **(PUSHED | {"hub_model_id": "lab/run"}))


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_optimizer_states_are_not_for_the_hub(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(ValueError, match=f"hub_strategy is '{strategy}', which publishes optimizer"):
        make_arguments(tmp_path, push_to_hub=True, hub_strategy=strategy)


def test_the_card_shows_metrics_of_the_weights_that_are_pushed(tmp_path: Path, images: Dataset) -> None:
    """Neither those of other steps, nor errors from before the scores were put on their scale."""
    options = IN_STEPS | TESTED | {"calibrate": True, "score_range": [0.0, 70.0]}
    trainer = make_trainer(tmp_path / "run", images, eval_dataset={"study": images}, **options)
    trainer.train()
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_bytes()
    (last,) = [entry for entry in trainer.state.log_history if entry["step"] == 4 and "eval_study_srcc" in entry]
    assert results_of(card)["study", "srcc"] == last["eval_study_srcc"] and ("study", "rmse") not in results_of(card)
    now = trainer.evaluate()
    trainer.create_model_card(license="mit", dataset="my study", finetuned_from="lab/clip")
    card = (tmp_path / "run" / "README.md").read_bytes()
    assert results_of(card)["study", "rmse"] == now["eval_study_rmse"]
    assert "| training data | my study (12 images) |" in card.decode()
    assert ModelCard(card.decode()).data.base_model == "lab/clip"


def test_the_best_models_metrics_are_the_cards(tmp_path: Path, images: Dataset) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_study_loss", "greater_is_better": True}
    trainer = make_trainer(
        tmp_path / "run", images, eval_dataset={"study": images}, learning_rate=0.1, **IN_STEPS, **TESTED, **best
    )
    trainer.train()
    step = trainer.state.best_global_step
    (entry,) = [each for each in trainer.state.log_history if each["step"] == step and "eval_study_srcc" in each]
    trainer.create_model_card()
    assert results_of((tmp_path / "run" / "README.md").read_bytes())["study", "plcc"] == entry["eval_study_plcc"]


def test_a_trainer_leaves_the_users_card_alone(hub: Hub, tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    trainer = make_trainer(folder, images, max_steps=1, hub_model_id=REPO)
    trainer.train()
    trainer.push_to_hub()
    assert hub.files(REPO)["README.md"] == (folder / "README.md").read_bytes() == b"---\nlicense: mit\n---\nMine.\n"


def test_a_configured_run_pushes_when_its_record_is_safe(hub: Hub, tmp_path: Path, images: Dataset) -> None:
    rows = images.to_dict()
    names = sorted(set(rows["scene"]))
    entries = [
        ManifestEntry(Path(image).name, score, scene=scene, domain_id=names.index(scene))
        for image, score, scene in zip(rows["image"], rows["score"], rows["scene"], strict=True)
    ]
    score = ScoreInfo("MOS", (0, 100))
    Manifest("study", entries, score, domain_names=dict(enumerate(names))).save(tmp_path / "study.json")
    config = tmp_path / "config.yaml"
    config.write_text(f"""
model:
  vision_config: {{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}}
  view_size: 56
data: {{image_root: {Path(rows["image"][0]).parent}, train: [{tmp_path}/study.json], hold_out_scenes: [night]}}
training: {{output_dir: {tmp_path}/run, per_device_train_batch_size: 4, max_steps: 2, eval_views: center,
           report_to: none, use_cpu: true, save_strategy: "no"}}
""")
    pushed = ["push_to_hub=true", f"hub_model_id={REPO}", "hub_strategy=end", f"hub_token={WRITER}"]
    hub.failures["commit"] = 403
    with pytest.raises(ValueError, match="may not write there"):
        run_training(load_config(config, pushed))
    assert (tmp_path / "run" / "results.json").is_file()
    hub.failures.clear()
    record = run_training(load_config(config, [*pushed, f"output_dir={tmp_path}/again"]))
    assert set(hub.files(REPO)) - {".gitattributes"} == ESSENTIAL
    card = hub.files(REPO)["README.md"].decode()
    assert results_of(card.encode())["study_held_out", "krcc"] == record["metrics"]["study_held_out"]["krcc"]
    assert MARKER in card and "| training data | study (8 images) |" in card and str(tmp_path) not in card
    for file in (tmp_path / "again").glob("*.*"):
        assert file.suffix == ".bin" or WRITER.encode() not in file.read_bytes(), file
