"""Pushes to the Hub: the files that may leave a folder, one commit each, and errors that say what to do."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects

from sind_hf import __version__
from sind_hf.checkpoints import check_folder, load_checkpoint
from sind_hf.files import atomic_file
from sind_hf.hub.model_card import CARD, FIGURES, Example, has_own_card, is_ours, model_card
from sind_hf.hub.model_facts import ModelFacts, facts_from_folder, local_path_in
from sind_hf.run_record import read_record

RepoType = Literal["model", "space"]
# The only files that leave a model's folder: no optimizer states, no pickles, no records or scores with local paths.
MODEL_FILES = (
    CARD,
    "LICENSE",
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "adapter_config.json",  # of PEFT, beside the base model
    "adapter_model.safetensors",
    "configuration_sind.py",
    "modeling_sind.py",
    "image_processing_sind.py",
    "pipeline_sind.py",
    "losses.py",
    f"{FIGURES}/*_scatter.png",
    f"{FIGURES}/example.*",
)
EXAMPLE_IMAGE = Path(__file__).with_name("example.jpg")
_EXAMPLE_CREDIT = "photograph: Stéfan van der Walt, CC0"


@dataclass(frozen=True)
class Push:
    """The result of a push.

    Attributes:
        url: URL of the commit.
        repo_id: Name of the repository, with its namespace.
        card: `"written"`; `"kept"` if the folder's README.md was pushed as it is, because the user wrote it or it says
            more than could be written now; `"remote"` if the repository has a README.md that somebody wrote there,
            which stays.
        files: Paths of the pushed files.
    """

    url: str
    repo_id: str
    card: Literal["written", "kept", "remote"]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """The files that a push would upload, as far as is known without asking the Hub."""

    sizes: dict[str, int]  # in bytes, by path
    card: str  # text of the model card
    card_is_new: bool  # whether it was written for this push; otherwise it is the folder's own README.md


def push_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    figures: Sequence[str | os.PathLike[str]] = (),
    example: str | os.PathLike[str] | None = EXAMPLE_IMAGE,
    token: str | None = None,
) -> Push:
    """Upload a checkpoint folder to the Hub, with its code and a model card, as one commit.

    The card is written from `config.json`, and from the run record `results.json` if the folder has one. A `README.md`
    without our marker is the user's own and is pushed unchanged. The folder gets the new card and its figures
    after the push; a push that fails leaves the folder as it was.

    Args:
        folder: Checkpoint, as `save_pretrained` or a training run leaves it. Only `MODEL_FILES` leave it.
        repo_id: `user/name`; without a user, a repository of the user whom the token belongs to.
        private: Whether a new repository is private.
        revision: Branch to push to, created if needed. Default: main.
        message: Message of the commit.
        license: License of the weights, one of the Hub's identifiers, such as `mit`.
        figures: PNG files for the card, named `*_scatter.png`.
        example: Image that the card shows with its score. Default: a photograph of a cat (CC0); None for no image.
        token: Access token. Default: that of `hf auth login`, or `HF_TOKEN`.

    Returns:
        The commit, the repository and the pushed files.

    Raises:
        ValueError: If the folder is not a complete checkpoint, the example cannot be scored, or the Hub refuses or
            cannot be reached; the message says what to do.
    """
    path = Path(folder)
    require_complete(path)
    facts = facts_from_folder(path)
    api = hub_api(token)
    renews = _renews_card(path)
    staged, shown = _stage_images(path, figures, example) if renews else ({}, None)
    with tempfile.TemporaryDirectory() as temporary:
        with one_line_errors(api, repo_id, path):
            repo_id = open_repository(api, repo_id, private=private, revision=revision)
            remote_card = fetch_card(api, repo_id, revision)
        if renews:
            staged[CARD] = Path(temporary) / CARD
            text = _card_text(facts, repo_id, list(staged), shown, license or declared_license(remote_card))
            staged[CARD].write_text(text, encoding="utf-8")
        with one_line_errors(api, repo_id, path):
            commit, files = commit_model(
                api, path, repo_id, remote_card, staged=staged, revision=revision, message=message
            )
        with suppress(OSError, ValueError):  # the push is done; a folder that cannot be written stays as it was
            for name, source in staged.items():
                with atomic_file(path / name) as target:
                    shutil.copyfile(source, target)
    card: Literal["written", "kept", "remote"] = "written" if CARD in staged else "kept"
    return Push(commit.commit_url, repo_id, card if CARD in files else "remote", tuple(files))


def preview_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    license: str | None = None,
    figures: Sequence[str | os.PathLike[str]] = (),
    example: str | os.PathLike[str] | None = EXAMPLE_IMAGE,
) -> Preview:
    """Return what `push_model` would upload with these arguments; nothing is sent, and the folder stays as it is.

    Raises:
        ValueError: If the folder is not a complete checkpoint or the example cannot be scored.
    """
    path = Path(folder)
    require_complete(path)
    facts = facts_from_folder(path)
    sizes = {name: (path / name).stat().st_size for name in list_files(path, MODEL_FILES)}
    if not _renews_card(path):
        return Preview(sizes, (path / CARD).read_text(encoding="utf-8", errors="replace"), False)
    staged, shown = _stage_images(path, figures, example)
    card = _card_text(facts, repo_id, list(staged), shown, license)
    sizes |= {name: file.stat().st_size for name, file in staged.items()} | {CARD: len(card.encode())}
    return Preview(dict(sorted(sizes.items())), card, True)


def _renews_card(folder: Path) -> bool:
    """Say whether a push writes the card: not over the user's own, nor over one that knows more than the folder."""
    if has_own_card(folder):
        return False
    # Without a record, an existing card of ours was written by the trainer, from what it saw.
    return read_record(folder) is not None or not (folder / CARD).exists()


def _stage_images(
    folder: Path, figures: Sequence[str | os.PathLike[str]], example: str | os.PathLike[str] | None
) -> tuple[dict[str, Path], Example | None]:
    """Collect the images of a card, by their path beside it, and score the example."""
    staged = {f"{FIGURES}/{Path(figure).name}": Path(figure) for figure in figures}
    if example is None:
        return staged, None
    model, processor = load_checkpoint(str(folder), device="cpu")
    (score,) = model.score([str(example)], processor)
    name = f"{FIGURES}/example{Path(example).suffix.lower()}"
    staged[name] = Path(example)
    return staged, Example(name, score, _EXAMPLE_CREDIT if Path(example) == EXAMPLE_IMAGE else None)


def _card_text(
    facts: ModelFacts, repo_id: str, staged: Sequence[str], example: Example | None, license: str | None
) -> str:
    figures = [name for name in staged if name.endswith("_scatter.png")]
    return str(model_card(facts, repo_id, figures=figures, example=example, license=license))


def upload_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    allow_patterns: Sequence[str] | None = None,
) -> str:
    """Upload a prepared folder to a repository of the Hub as one commit: all of it, or nothing.

    Args:
        folder: Folder to upload.
        repo_id: `user/name`, created if needed; a new Space is one for Gradio.
        repo_type: `"model"` or `"space"`.
        private: Whether a new repository is private.
        revision: Branch, created if needed. Default: main.
        message: Message of the commit.
        allow_patterns: Patterns of the files that may leave the folder. Default: all files that are not hidden.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: If there is nothing to upload, or the Hub refuses or cannot be reached; the message says what to
            do. The folder stays as it was.
    """
    path = Path(folder)
    api = hub_api()
    with one_line_errors(api, repo_id, path):
        files = list_files(path, allow_patterns)
        repo_id = open_repository(api, repo_id, repo_type=repo_type, private=private, revision=revision)
        commit = commit_files(api, path, files, repo_id, repo_type=repo_type, revision=revision, message=message)
        return commit.commit_url


def hub_api(token: str | None = None) -> HfApi:
    """Return a client of the Hub.

    Raises:
        ValueError: If there is no access token.
    """
    if not (token or get_token()):
        raise ValueError(
            "There is no access token for the Hub: run `hf auth login`, or set HF_TOKEN to a token with write "
            "permission (https://huggingface.co/settings/tokens)."
        )
    return HfApi(token=token, library_name="sind-hf", library_version=__version__)


def open_repository(
    api: HfApi,
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    space_sdk: str = "gradio",
    private: bool | None = False,
    revision: str | None = None,
) -> str:
    """Create a repository and a branch, unless they exist already.

    Returns:
        The name of the repository, with its namespace.

    Raises:
        ValueError: If it should be private but exists already and is public.
        HfHubHTTPError: If the Hub refuses.
    """
    sdk = space_sdk if repo_type == "space" else None
    created = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True, space_sdk=sdk)
    repo_id = created.repo_id
    if private and api.repo_info(repo_id, repo_type=repo_type).private is False:
        raise ValueError(f"{repo_id} already exists and is public: choose another name, or push without --private.")
    if revision and revision != constants.DEFAULT_REVISION:
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    return repo_id


def commit_files(
    api: HfApi,
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    revision: str | None = None,
    message: str | None = None,
    deleted: Sequence[str] = (),
    staged: Mapping[str, Path] | None = None,
) -> CommitInfo:
    """Upload files and delete others as one commit. (`HfApi.upload_folder` may divide one into several.)

    Args:
        api: Client of the Hub.
        folder: Folder of the files.
        files: Paths of the files, in the folder as in the repository.
        repo_id: Existing repository.
        repo_type: `"model"` or `"space"`.
        revision: Branch. Default: main.
        message: Message of the commit.
        deleted: Paths of files to delete from the repository.
        staged: Files that are read from elsewhere, by their path in the repository.
    """
    elsewhere = staged or {}
    return api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, elsewhere.get(name, folder / name)) for name in files),
            *(CommitOperationDelete(name) for name in deleted),
        ],
        commit_message=message or f"Upload {repo_type} with sind-hf {__version__}",
        repo_type=repo_type,
        revision=revision,
    )


def commit_model(
    api: HfApi,
    folder: Path,
    repo_id: str,
    remote_card: str | None,
    *,
    staged: Mapping[str, Path] | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> tuple[CommitInfo, list[str]]:
    """Upload the files of a model's folder that may leave it; a card of ours never replaces one that somebody wrote.

    The arguments are those of `commit_files`, and `remote_card`, the README.md of the repository.

    Returns:
        The commit and the paths of its files.
    """
    staged = staged or {}
    files = sorted({*list_files(folder, MODEL_FILES), *staged})
    if CARD in files and remote_card is not None and _has_text(remote_card) and not is_ours(remote_card):
        card = staged.get(CARD, folder / CARD).read_text(encoding="utf-8", errors="replace")
        if is_ours(card):
            files.remove(CARD)
    commit = commit_files(api, folder, files, repo_id, staged=staged, revision=revision, message=message)
    return commit, files


def list_files(folder: Path, allow_patterns: Sequence[str] | None = None) -> list[str]:
    """Return the files that may leave a folder, relative to it, sorted. Hidden files never leave it.

    Raises:
        ValueError: If there are none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder.")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    allowed = list(filter_repo_objects(names, allow_patterns=list(allow_patterns) if allow_patterns else None))
    if not allowed:
        raise ValueError(f"{folder}: contains nothing to upload.")
    return allowed


def fetch_card(api: HfApi, repo_id: str, revision: str | None = None) -> str | None:
    """Return the README.md of a repository, or None if it has none."""
    if not api.file_exists(repo_id, CARD, revision=revision):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=folder)
        return Path(path).read_text(encoding="utf-8", errors="replace")


def declared_license(card: str | None) -> str | None:
    """Return the license that a card declares, such as the one chosen when the repository was created."""
    try:
        return None if card is None else ModelCard(card, ignore_metadata_errors=True).data.get("license")
    except ValueError:
        return None


def require_complete(folder: Path) -> None:
    """Check that a folder's files are enough to load the model, and that they tell nothing of this machine.

    Raises:
        ValueError: If weights, processor or code are missing, or a configuration contains a local path; the message
            names it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such checkpoint folder.")
    check_folder(str(folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    needed = {"preprocessor_config.json"}
    needed |= {f"{target.split('.')[0]}.py" for target in (config.get("auto_map") or {}).values()}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        needed |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        needed.add("model.safetensors")
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if "auto_map" not in config:
        missing.append("auto_map in config.json")
    if missing:
        raise ValueError(
            f"{folder}: nobody could load this checkpoint from the Hub, because it lacks {', '.join(missing)}: save "
            "model and image processor again with save_pretrained."
        )
    for name in ("config.json", "preprocessor_config.json"):
        if path := local_path_in(json.loads((folder / name).read_text(encoding="utf-8"))):
            raise ValueError(
                f"{folder / name}: names {path}, a path of this machine: remove it, or save again with "
                "save_pretrained."
            )


@contextmanager
def one_line_errors(api: HfApi, repo_id: str, folder: Path) -> Iterator[None]:
    """Turn errors of the Hub and its client into one line that says what to do; tokens are taken out of it."""
    try:
        yield
    except Exception as error:
        text = " ".join(_explain(error, api, repo_id, folder).split())
        for token in filter(None, (api.token, get_token())):
            text = text.replace(str(token), "<token>")
        raise ValueError(text) from error


def _explain(error: BaseException, api: HfApi, repo_id: str, folder: Path) -> str:
    again = f"{folder} is as it was; push again"
    if isinstance(error, ValueError) and not isinstance(error, (HFValidationError, json.JSONDecodeError)):
        return str(error)  # one of ours, or the Hub's about the metadata of a card
    cause: BaseException | None = error
    while cause is not None:  # uploads wrap the errors that stop them
        if isinstance(cause, HFValidationError):
            return f"{repo_id!r} is not a repository name; write user/name: {cause}"
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it and push again."
        if isinstance(cause, HfHubHTTPError):
            return _explain_answer(cause, repo_id, again)
        if type(cause).__module__.startswith("httpx"):  # the client's HTTP library
            return f"{api.endpoint} cannot be reached ({type(cause).__name__}: {cause}): check the network. {again}."
        cause = cause.__cause__
    return f"{repo_id}: the upload failed ({type(error).__name__}: {error}); {again}."


def _explain_answer(error: HfHubHTTPError, repo_id: str, again: str) -> str:
    status = error.response.status_code
    said = f", which says: {error.server_message}" if error.server_message else ""
    code = error.response.headers.get("X-Error-Code")
    if status == 401:
        return f"{repo_id}: the Hub does not accept the token (401): run `hf auth login` again, or renew HF_TOKEN."
    if code == "RepoNotFound" or status == 404:
        return (
            f"{repo_id}: the Hub has no such repository of this type ({status}). If the name belongs to a dataset or "
            "a Space, choose another one; otherwise use a token that may see it."
        )
    if status == 403:
        return (
            f"{repo_id}: the token may not write there (403){said}; choose a name under your own user, or a token "
            "with write permission."
        )
    if status >= 500 or status == 429:
        return f"{repo_id}: the Hub could not take the upload ({status}){said}; {again} later."
    return f"{repo_id}: the Hub refused the upload ({status}){said or f': {error}'}; {again} after fixing that."


def _has_text(card: str) -> bool:
    """Say whether a card contains more than the metadata that the Hub writes for a new repository."""
    try:
        return bool(ModelCard(card, ignore_metadata_errors=True).text.strip())
    except ValueError:
        return True
