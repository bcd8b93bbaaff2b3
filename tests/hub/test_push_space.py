"""`sind-hf push --space`: a Space on the Hub, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hub_server import Hub
from huggingface_hub import HfApi, snapshot_download

from sind_hf.hub.space import push_space, write_space

SPACE, MODEL = "user/photo-quality", "user/sind-tiny"
Answer = tuple[int, str, str]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for temporary files; a push must leave nothing in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if ".cache" not in path.parts}


def header(hub: Hub) -> dict[str, object]:
    return yaml.safe_load(hub.files(SPACE)["README.md"].decode().split("---\n")[1])


def test_a_folder_becomes_a_space_with_its_weights(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], tmp_path: Path, temporary: Path
) -> None:
    (checkpoint / "training_args.bin").write_bytes(b"pickle")
    before = contents(checkpoint)
    code, out, err = push(checkpoint, "--repo-id", SPACE, "--space", "--title", "How good?", "--message", "Show it")
    assert (code, err) == (0, "")
    repository = hub.repositories[SPACE]
    assert (repository.kind, repository.private) == ("space", False)
    assert [commit.message for commit in repository.history()] == ["Show it", "initial commit"]
    first, second = out.splitlines()
    assert first.endswith(f" files pushed to {SPACE}: {hub.url}/spaces/{SPACE}/commit/{repository.branches['main']}")
    assert second == f"the page will be at {hub.url}/spaces/{SPACE} when the Hub has built it"
    assert (header(hub)["title"], header(hub)["sdk"], header(hub)["app_file"]) == ("How good?", "gradio", "app.py")
    # What comes down is, byte for byte, the folder that `write_space` makes.
    down = Path(snapshot_download(SPACE, repo_type="space", local_dir=tmp_path / "down"))
    expected = contents(write_space(tmp_path / "space", str(checkpoint), title="How good?"))
    assert contents(down) == expected
    assert {"app.py", "requirements.txt", "sind_hf/app/page.css", "model/config.json"} <= set(expected)
    assert not [name for name in expected if name.endswith((".bin", ".pyc"))]
    weights = repository.at("main").files["model/model.safetensors"]  # type: ignore[union-attr]
    assert weights.lfs and weights.content == (checkpoint / "model.safetensors").read_bytes()
    assert contents(checkpoint) == before and not list(temporary.iterdir())


def test_a_model_on_the_hub_is_named_and_stale_files_go(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer]
) -> None:
    assert push(checkpoint, "--repo-id", MODEL)[0] == push(checkpoint, "--repo-id", SPACE, "--space")[0] == 0
    for name in ("notes.md", "sind_hf/gone.py"):  # of the user, and of an older version of the package
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id=SPACE, repo_type="space")
    with_weights = set(hub.files(SPACE))
    pushed = push_space(MODEL, SPACE)
    assert (pushed.repo_id, pushed.url) == (SPACE, f"{hub.url}/spaces/{SPACE}")
    assert pushed.commit_url.rpartition("/")[2] == hub.repositories[SPACE].branches["main"]
    files = hub.files(SPACE)
    assert set(pushed.files) == set(files) - {"notes.md", ".gitattributes"}
    gone = {"sind_hf/gone.py", "model/config.json", "model/model.safetensors", "model/preprocessor_config.json"}
    assert with_weights - set(files) == gone
    assert header(hub)["models"] == header(hub)["preload_from_hub"] == [MODEL]
    assert f'MODEL = "{MODEL}"' in files["app.py"].decode().replace("'", '"')


def test_private_and_on_a_branch(hub: Hub, checkpoint: Path, push: Callable[..., Answer]) -> None:
    code, _, _ = push(checkpoint, "--repo-id", SPACE, "--space", "--private", "--revision", "trial")
    assert code == 0 and hub.repositories[SPACE].private
    assert set(hub.files(SPACE)) == {".gitattributes"} and "app.py" in hub.files(SPACE, "trial")


@pytest.mark.parametrize(("step", "failure"), [("create", 500), ("put", 500), ("batch", "drop"), ("commit", "drop")])
def test_a_failed_push_leaves_nothing(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], temporary: Path, step: str, failure: int | str
) -> None:
    before = contents(checkpoint)
    hub.failures[step] = failure
    code, out, err = push(checkpoint, "--repo-id", SPACE, "--space")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert f"{checkpoint} is as it was; push again" in err
    assert str(temporary) not in err
    if SPACE in hub.repositories:
        assert set(hub.files(SPACE)) == {".gitattributes"}
    assert contents(checkpoint) == before and not list(temporary.iterdir())
    hub.failures.clear()
    assert push(checkpoint, "--repo-id", SPACE, "--space")[0] == 0 and "app.py" in hub.files(SPACE)


def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], tmp_path: Path
) -> None:
    hub.requests.clear()
    for arguments, expected in (
        ((checkpoint, "--space", "--license", "mit"), "--license is for pushing a model: leave it out"),
        ((checkpoint, "--title", "Mine"), "--title needs --space: add it"),
        ((checkpoint, "--static"), "--static needs --space: add it"),
        ((checkpoint, "--space", "--card", "https://x"), "--runtime and --card need --space --static: add those"),
        ((tmp_path, "--space"), "holds no config.json, so it is not a checkpoint"),
        (("nowhere", "--space"), "nowhere: neither a checkpoint folder nor a Hub repository"),
    ):
        code, out, err = push(*arguments, "--repo-id", SPACE)
        assert (code, out) == (2, "") and len(err.splitlines()) == 1 and expected in err
    assert hub.requests == []


def test_models_that_a_space_could_not_load_are_named(hub: Hub, push: Callable[..., Answer]) -> None:
    code, _, err = push("user/nothing", "--repo-id", SPACE, "--space")
    assert code == 2 and "user/nothing: neither a folder here nor a model on the Hub" in err
    api = HfApi()
    api.create_repo("user/bert")
    api.upload_file(path_or_fileobj=b'{"model_type": "bert"}', path_in_repo="config.json", repo_id="user/bert")
    code, _, err = push("user/bert", "--repo-id", SPACE, "--space")
    assert code == 2 and "user/bert: is a checkpoint of 'bert', not of SIND" in err
    assert SPACE not in hub.repositories


def test_a_static_space_replaces_one_with_a_server(
    hub: Hub, checkpoint: Path, push: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder itself is tested in tests/app; here, that it is what reaches the Hub."""
    from sind_hf.app import static_site

    assert push(checkpoint, "--repo-id", SPACE, "--space")[0] == 0
    asked = {}

    def write(folder: Path, model: str, **options: object) -> static_site.Site:
        asked.update(options, model=model)
        (folder / "ort").mkdir(parents=True)
        (folder / "ort" / "ort.js").write_bytes(b"runtime")
        (folder / "README.md").write_text("---\nsdk: static\n---\n")
        return static_site.Site(folder, 0, 0)

    monkeypatch.setattr(static_site.site, "write_site", write)
    options = ("--title", "Mine", "--card", "https://example.org", "--runtime", tmp_path)
    code, out, err = push(checkpoint, "--repo-id", SPACE, "--space", "--static", *options)
    assert (code, err) == (0, "") and out.startswith(f"2 files pushed to {SPACE}: ")
    files = set(hub.files(SPACE))
    assert {"README.md", "ort/ort.js"} <= files and header(hub) == {"sdk": "static"}
    assert not [name for name in files if name.startswith(("sind_hf/", "model/"))]
    expected = {"title": "Mine", "card": "https://example.org", "runtime": tmp_path, "model": str(checkpoint)}
    assert asked == expected
    # A new one is made for plain files, and one with a server can take its place.
    assert push(checkpoint, "--repo-id", "user/plain", "--space", "--static")[0] == 0
    assert push(checkpoint, "--repo-id", SPACE, "--space")[0] == 0 and "ort/ort.js" not in hub.files(SPACE)
