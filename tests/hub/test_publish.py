"""`push_model` and `upload_folder` against a Hub on localhost: what leaves, what comes back, and every refusal."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from hub_server import READER, WRITER, File, Hub, Repository
from huggingface_hub import constants
from run_folders import SECRETS, make_run, save_checkpoint

from sind_hf import SindImageProcessor, SindModel
from sind_hf.hub.model_card import MARKER
from sind_hf.hub.publish import EXAMPLE_IMAGE, preview_model, push_model, upload_folder

REPO = "user/sind-tiny"
CODE = {"configuration_sind.py", "modeling_sind.py", "image_processing_sind.py", "pipeline_sind.py", "losses.py"}
ESSENTIAL = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} | CODE
EXAMPLE = "figures/example.jpg"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, repo_id: str = REPO, **options: object) -> str:
    """Return the one line of a push that fails; it leaves the folder as it was."""
    before = contents(folder)
    with pytest.raises(ValueError) as error:
        push_model(folder, repo_id, **options)  # type: ignore[arg-type]
    assert contents(folder) == before
    assert "\n" not in str(error.value) and WRITER not in str(error.value) and READER not in str(error.value)
    return str(error.value)


def test_a_push_contains_what_a_user_needs_and_nothing_else(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    make_run(checkpoint)
    figure = tmp_path / "koniq10k_held_out_scatter.png"
    figure.write_bytes(b"\x89PNG new")
    (checkpoint / "figures").mkdir()
    for name in (figure.name, "training_curve.png", "scores.csv"):
        (checkpoint / "figures" / name).write_bytes(b"\x89PNG")
    done = push_model(checkpoint, REPO, license="mit", figures=[figure])
    files = hub.files(REPO)
    assert set(files) - {".gitattributes"} == ESSENTIAL | {f"figures/{figure.name}", EXAMPLE} == set(done.files)
    assert files[f"figures/{figure.name}"] == b"\x89PNG new" and files[EXAMPLE] == EXAMPLE_IMAGE.read_bytes()
    score = SindModel.from_pretrained(checkpoint).score(
        str(EXAMPLE_IMAGE), SindImageProcessor.from_pretrained(checkpoint)
    )[0]
    assert f"gives this image **{score:.2f}** on its scale of 0 to 100" in files["README.md"].decode()
    for path, content in files.items():
        assert not any(secret.encode() in content for secret in SECRETS), path
        if path != ".gitattributes":
            assert content == (checkpoint / path).read_bytes()
    assert done.card == "written" and "(figures/koniq10k_held_out_scatter.png)" in files["README.md"].decode()
    commit = hub.repositories[REPO].history()[0]
    assert done.url == f"{hub.url}/{REPO}/commit/{commit.oid}"
    assert len(hub.repositories[REPO].history()) == 2  # one commit upon the initial one
    assert commit.files["model.safetensors"].lfs and commit.files["model.safetensors"].oid in hub.objects
    assert not hub.repositories[REPO].private


def test_every_push_is_a_revision(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    push_model(checkpoint, REPO, message="first")
    first = hub.repositories[REPO].branches["main"]
    weights = hub.files(REPO)["model.safetensors"]
    other = save_checkpoint(tmp_path / "other", seed=1)
    push_model(other, REPO, message="second")
    assert [commit.message for commit in hub.repositories[REPO].history()] == ["second", "first", "initial commit"]
    assert hub.files(REPO, first)["model.safetensors"] == weights != hub.files(REPO)["model.safetensors"]
    push_model(checkpoint, REPO, revision="trial")
    assert hub.files(REPO, "trial")["model.safetensors"] == weights != hub.files(REPO)["model.safetensors"]
    # The same again: no empty commit, and no object travels twice.
    puts = [path for method, path in hub.requests if method == "PUT"]
    push_model(other, REPO)
    assert len(hub.repositories[REPO].history()) == 3
    assert [path for method, path in hub.requests if method == "PUT"] == puts and len(puts) == 2


def test_a_name_without_a_user_is_the_token_owners(hub: Hub, checkpoint: Path) -> None:
    done = push_model(checkpoint, "sind-tiny", private=True)
    assert done.repo_id == REPO and hub.repositories[REPO].private
    assert f'from_pretrained("{REPO}")' in hub.files(REPO)["README.md"].decode()


def test_what_should_be_private_does_not_go_where_all_can_read(hub: Hub, checkpoint: Path) -> None:
    push_model(checkpoint, REPO)
    before = len(hub.repositories[REPO].commits)
    assert "already exists and is public: choose another name" in refused(checkpoint, private=True)
    assert len(hub.repositories[REPO].commits) == before


def test_a_preview_shows_what_a_push_uploads_and_sends_nothing(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    make_run(checkpoint)
    figure = tmp_path / "livec_scatter.png"
    figure.write_bytes(b"\x89PNG")
    before = contents(checkpoint)
    preview = preview_model(checkpoint, REPO, license="mit", figures=[figure])
    assert hub.requests == [] and contents(checkpoint) == before
    push_model(checkpoint, REPO, license="mit", figures=[figure])
    files = {name: content for name, content in hub.files(REPO).items() if name != ".gitattributes"}
    assert preview.sizes == {name: len(content) for name, content in files.items()}
    assert preview.card == files["README.md"].decode() and preview.card_is_new
    (checkpoint / "README.md").write_text("Mine.\n")
    preview = preview_model(checkpoint, REPO)
    assert (preview.card, preview.card_is_new, preview.sizes["README.md"]) == ("Mine.\n", False, 6)


def test_an_example_that_cannot_be_scored_stops_the_push_before_anything_is_sent(
    hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    assert "nowhere.jpg" in refused(checkpoint, example=tmp_path / "nowhere.jpg")
    assert hub.requests == []


# --- cards that are not ours -----------------------------------------------------------------------------------------


def test_the_users_card_is_pushed_as_it_is(hub: Hub, checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\nMy model.\n")
    make_run(checkpoint)
    assert push_model(checkpoint, REPO).card == "kept"
    assert hub.files(REPO)["README.md"] == b"---\nlicense: mit\n---\nMy model.\n"


def test_our_card_is_renewed_from_the_record(hub: Hub, checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text(f"---\nlicense: mit\n---\n{MARKER}\nold\n")
    make_run(checkpoint)
    assert push_model(checkpoint, REPO).card == "written"
    assert "koniq10k_held_out" in hub.files(REPO)["README.md"].decode()


def test_what_the_trainer_wrote_is_not_replaced_by_unknown(hub: Hub, checkpoint: Path) -> None:
    """Without a record the folder says nothing of the training; the card in it does."""
    told = f"---\nlicense: mit\n---\n{MARKER}\nTrained on three scenes.\n"
    (checkpoint / "README.md").write_text(told)
    assert push_model(checkpoint, REPO).card == "kept"
    assert hub.files(REPO)["README.md"].decode() == told


def on_the_hub(hub: Hub, readme: str) -> None:
    hub.repositories[REPO] = Repository("model", False)
    hub.repositories[REPO].add("main", "by hand", {"README.md": File(readme.encode(), False)})


def test_a_card_that_somebody_wrote_on_the_hub_stays(hub: Hub, checkpoint: Path) -> None:
    on_the_hub(hub, "---\nlicense: mit\n---\nMy words.\n")
    done = push_model(checkpoint, REPO)
    assert done.card == "remote" and "README.md" not in done.files
    assert hub.files(REPO)["README.md"].endswith(b"My words.\n") and "model.safetensors" in hub.files(REPO)
    # A card of the user's own in the folder says that it is to be that one.
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\nNew words.\n")
    assert push_model(checkpoint, REPO).card == "kept"
    assert hub.files(REPO)["README.md"].endswith(b"New words.\n")


def test_the_license_chosen_on_the_hub_is_kept(hub: Hub, checkpoint: Path) -> None:
    on_the_hub(hub, "---\nlicense: cc-by-4.0\n---\n")
    assert push_model(checkpoint, REPO).card == "written"
    text = hub.files(REPO)["README.md"].decode()
    assert "\nlicense: cc-by-4.0\n" in text and "Weights: cc-by-4.0." in text


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_push_without_a_token_says_how_to_log_in(
    hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "run `hf auth login`, or set HF_TOKEN" in refused(checkpoint)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "repo_id", "expected"),
    [
        ("hf_expired", REPO, "does not accept the token (401): run `hf auth login` again"),
        (READER, REPO, "may not write there (403), which says: You don't have the rights"),
        (WRITER, "lab/sind-tiny", "choose a name under your own user, or a token with write permission"),
        (WRITER, "user/two words", "is not a repository name; write user/name"),
        (WRITER, "a/b/c", "is not a repository name; write user/name"),
    ],
)
def test_who_may_not_is_told_what_to_do(hub: Hub, checkpoint: Path, token: str, repo_id: str, expected: str) -> None:
    message = refused(checkpoint, repo_id, token=token)
    assert expected in message and token not in message
    assert hub.repositories == {}


def test_a_name_that_belongs_to_a_dataset(hub: Hub, checkpoint: Path) -> None:
    hub.repositories[REPO] = Repository("dataset", False)
    hub.repositories[REPO].add("main", "initial commit", {})
    assert "belongs to a dataset or a Space" in refused(checkpoint)


def test_offline_and_out_of_reach(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refused(checkpoint)
    assert "http://127.0.0.1:9 cannot be reached (ConnectError" in message and "push again" in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(checkpoint)


@pytest.mark.parametrize(
    ("step", "failure"),
    [
        *((step, 500) for step in ("create", "read", "validate", "preupload", "batch", "put", "verify", "commit")),
        *((step, failure) for step in ("read", "put", "commit") for failure in (403, "drop")),
    ],
)
def test_a_push_that_fails_on_the_way_can_be_repeated(
    hub: Hub, checkpoint: Path, step: str, failure: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(checkpoint)
    hub.failures[step] = failure
    with caplog.at_level(logging.DEBUG):
        message = refused(checkpoint)
    assert WRITER not in caplog.text
    if failure == "drop":
        assert re.search(r"cannot be reached \(\w+Error", message)
    else:
        assert f"({failure})" in message
    assert ("push again" in message) == (failure != 403), message
    # Nothing half arrives: the repository is not there, or as it was made.
    assert all(set(hub.files(repo)) == {".gitattributes"} for repo in hub.repositories)
    hub.failures.clear()
    push_model(checkpoint, REPO)
    assert set(hub.files(REPO)) >= ESSENTIAL


def test_metadata_that_the_hub_refuses_are_named(hub: Hub, checkpoint: Path) -> None:
    message = refused(checkpoint, license="my own")
    assert "Invalid metadata in README.md" in message and '"license" must be one of' in message


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "modeling_sind.py"])
def test_half_a_checkpoint_is_not_pushed(hub: Hub, checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    message = refused(checkpoint)
    assert f"it lacks {name}" in message and "save_pretrained" in message
    assert hub.requests == []


def test_a_path_of_the_machine_does_not_leave_it(hub: Hub, checkpoint: Path) -> None:
    """Configurations that other programs wrote name the folder of the backbone; ours do not."""
    config = json.loads((checkpoint / "config.json").read_text())
    config["vision_config"]["_name_or_path"] = "/home/somebody/clip"
    (checkpoint / "config.json").write_text(json.dumps(config))
    message = refused(checkpoint)
    assert "config.json: names /home/somebody/clip, a path of this machine" in message
    assert hub.requests == []
    SindModel.from_pretrained(checkpoint).save_pretrained(checkpoint)
    push_model(checkpoint, REPO)
    assert b"/home/somebody" not in hub.files(REPO)["config.json"]


def test_folders_that_are_not_checkpoints(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused(tmp_path / "empty")
    assert "there is no such checkpoint folder" in refused(tmp_path / "nowhere")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    assert "is a checkpoint of 'clip', not of SIND" in refused(checkpoint)
    assert hub.requests == []


# --- any folder ------------------------------------------------------------------------------------------------------


def test_a_prepared_folder_becomes_a_space(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    (folder / "model").mkdir(parents=True)
    for name in ("app.py", "README.md", "model/config.json", "notes.txt", ".env"):
        (folder / name).write_text(f"---\nsdk: gradio\n---\n{name}\n")
    url = upload_folder(
        folder, "user/try", repo_type="space", message="app", allow_patterns=["*.py", "README.md", "model/*", ".env"]
    )
    assert hub.repositories["user/try"].kind == "space"
    assert set(hub.files("user/try")) - {".gitattributes"} == {"app.py", "README.md", "model/config.json"}
    assert url == f"{hub.url}/spaces/user/try/commit/{hub.repositories['user/try'].branches['main']}"
    with pytest.raises(ValueError, match="contains nothing to upload"):
        upload_folder(folder, "user/other", allow_patterns=["*.safetensors"])
    assert "user/other" not in hub.repositories
