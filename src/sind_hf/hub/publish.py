"""Folders to the Hub: what may leave them, one commit each, and errors that say what to do."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from sind_hf.checkpoints import check_folder
from sind_hf.hub.model_card import CARD, FIGURES, is_ours, model_card, write_card
from sind_hf.hub.model_facts import facts_from_folder, local_path_in, read_record
from sind_hf.version import __version__

RepoType = Literal["model", "space"]
# All that leaves a model's folder: no optimizer states, no pickles, no records and scores with the paths of a machine.
MODEL_FILES = (
    CARD,
    "LICENSE",
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "configuration_sind.py",
    "modeling_sind.py",
    "image_processing_sind.py",
    "pipeline_sind.py",
    "losses.py",
    f"{FIGURES}/*_scatter.png",
)


@dataclass(frozen=True)
class Push:
    """What a push did.

    Attributes:
        url: Of the commit.
        repo_id: With the namespace.
        card: `"written"`; `"kept"`: the folder's README.md is the user's own, or says more than could be written now;
            `"theirs"`: the repository has one that somebody wrote there, and it stays.
        files: What the folder gave, by path.
    """

    url: str
    repo_id: str
    card: Literal["written", "kept", "theirs"]
    files: tuple[str, ...]


def push_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    figures: Sequence[str | os.PathLike[str]] = (),
    token: str | None = None,
) -> Push:
    """Upload a checkpoint folder to the Hub, with its code and a model card, as one commit.

    `README.md` is written into the folder first: from `config.json` and, where there is one, the record
    `results.json`. One that does not carry our marker is the user's own and is pushed as it is.

    Args:
        folder: Checkpoint, as `save_pretrained` or a training run leaves it. Only `MODEL_FILES` leave it.
        repo_id: `user/name`; without a user, the one whom the token belongs to.
        private: Make a new repository private.
        revision: Branch to push to, made if need be; default: main.
        message: Of the commit.
        licence: Of the weights, one of the Hub's identifiers, such as `mit`.
        figures: Pictures in `figures/` of the folder, `*_scatter.png`, that the card shows.
        token: Default: that of `hf auth login`, or `HF_TOKEN`.

    Returns:
        What was pushed where.

    Raises:
        ValueError: When the folder is no whole checkpoint, or the Hub refuses or cannot be reached; the message says
            what to do. The folder is as it was, but for the new card.
    """
    path = Path(folder)
    require_whole(path)
    facts = facts_from_folder(path)
    api = hub_api(token)
    with one_line_errors(api, repo_id, path):
        repo_id = open_repository(api, repo_id, private=private, revision=revision)
        theirs = card_there(api, repo_id, revision)
    card: Literal["written", "kept", "theirs"] = "kept"
    # Without a record, a card of ours knows more than the folder: the trainer wrote it, from what it saw.
    if read_record(path) is not None or not (path / CARD).exists():
        names = [f"{FIGURES}/{Path(figure).name}" for figure in figures]
        text = model_card(facts, repo_id, figures=names, licence=licence or licence_of(theirs))
        card = "written" if write_card(text, path) else "kept"
    with one_line_errors(api, repo_id, path):
        commit, files = commit_model(api, path, repo_id, theirs, revision=revision, message=message)
    return Push(commit.commit_url, repo_id, card if CARD in files else "theirs", tuple(files))


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
    """Upload a prepared folder to a repository of the Hub, as one commit: all of it, or nothing.

    Args:
        folder: What to upload.
        repo_id: `user/name`; made if need be, a Space for Gradio.
        repo_type: `"model"` or `"space"`.
        private: Make a new repository private.
        revision: Branch, made if need be; default: main.
        message: Of the commit.
        allow_patterns: Files that may leave the folder; default: all but hidden ones.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: When there is nothing to upload, or the Hub refuses or cannot be reached; the message says what to
            do. The folder is as it was.
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
        ValueError: When nobody is logged in.
    """
    if not (token or get_token()):
        raise ValueError(
            "No token of the Hub: run `hf auth login`, or set HF_TOKEN to one that may write "
            "(https://huggingface.co/settings/tokens)."
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
    """Make a repository and a branch, where they are not there yet.

    Returns:
        The name of the repository, with its namespace.

    Raises:
        ValueError: When it should be private, but is there and public.
        HfHubHTTPError: When the Hub refuses.
    """
    sdk = space_sdk if repo_type == "space" else None
    made = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True, space_sdk=sdk)
    repo_id = made.repo_id
    if private and api.repo_info(repo_id, repo_type=repo_type).private is False:
        raise ValueError(f"{repo_id} is there and public: choose another name, or push without asking for private.")
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
) -> CommitInfo:
    """Upload files of a folder, and delete others, as one commit. (`HfApi.upload_folder` may cut one into several.)"""
    return api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, folder / name) for name in files),
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
    theirs: str | None,
    *,
    revision: str | None = None,
    message: str | None = None,
) -> tuple[CommitInfo, list[str]]:
    """Upload those files of a model's folder that may leave it; our card never replaces one written by somebody.

    Args:
        api: Client.
        folder: Checkpoint with its card.
        repo_id: Open repository.
        theirs: README.md of the repository, see `card_there`.
        revision: Branch.
        message: Of the commit.

    Returns:
        The commit, and the files in it.
    """
    files = list_files(folder, MODEL_FILES)
    foreign = theirs is not None and _has_text(theirs) and not is_ours(theirs)
    if CARD in files and foreign and is_ours((folder / CARD).read_text(encoding="utf-8", errors="replace")):
        files.remove(CARD)
    return commit_files(api, folder, files, repo_id, revision=revision, message=message), files


def list_files(folder: Path, allow_patterns: Sequence[str] | None = None) -> list[str]:
    """Return the files that may leave a folder, relative to it, sorted. Hidden ones never may.

    Raises:
        ValueError: When there is none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: is no folder.")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    allowed = list(filter_repo_objects(names, allow_patterns=list(allow_patterns) if allow_patterns else None))
    if not allowed:
        raise ValueError(f"{folder}: holds nothing to upload.")
    return allowed


def card_there(api: HfApi, repo_id: str, revision: str | None = None) -> str | None:
    """Return the README.md of a repository, None where it has none."""
    if not api.file_exists(repo_id, CARD, revision=revision):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=folder)
        return Path(path).read_text(encoding="utf-8", errors="replace")


def licence_of(card: str | None) -> str | None:
    """Return the licence that a card declares, such as the one chosen when the repository was made."""
    try:
        return None if card is None else ModelCard(card, ignore_metadata_errors=True).data.get("license")
    except ValueError:
        return None


def require_whole(folder: Path) -> None:
    """Check that whoever downloads a folder's files can load the model, and that they tell nothing of this machine.

    Raises:
        ValueError: When weights, processor or code are missing, or a configuration holds a local path; the message
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
            f"{folder}: nobody could load it from the Hub, it lacks {', '.join(missing)}: save model and image "
            "processor again with save_pretrained."
        )
    for name in ("config.json", "preprocessor_config.json"):
        if path := local_path_in(json.loads((folder / name).read_text(encoding="utf-8"))):
            raise ValueError(
                f"{folder / name}: names {path}, a path of this machine: take it out, or save again with "
                "save_pretrained."
            )


@contextmanager
def one_line_errors(api: HfApi, repo_id: str, folder: Path) -> Iterator[None]:
    """Turn what the Hub and its client say into one line that says what to do; tokens are taken out."""
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
        return str(error)  # ours, or what the Hub finds wrong with the metadata of a card
    for cause in _causes(error):
        if isinstance(cause, HFValidationError):
            return f"{repo_id!r} is no name of a repository, write user/name: {cause}"
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it, and push again."
        if isinstance(cause, HfHubHTTPError):
            return _explain_answer(cause, repo_id, again)
        if type(cause).__module__.startswith("httpx"):  # what the client's HTTP library raises below the Hub's own
            return f"{api.endpoint} cannot be reached ({type(cause).__name__}: {cause}): mind the network, {again}."
    return f"{repo_id}: the upload failed ({type(error).__name__}: {error}); {again}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from: uploads wrap what went wrong, HTTP errors of the Hub are wrapped last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _explain_answer(error: HfHubHTTPError, repo_id: str, again: str) -> str:
    status = error.response.status_code
    said = f", which says: {error.server_message}" if error.server_message else ""
    code = error.response.headers.get("X-Error-Code")
    if status == 401:
        return f"{repo_id}: the Hub does not accept the token (401): run `hf auth login` again, or renew HF_TOKEN."
    if code == "RepoNotFound" or status == 404:
        return (
            f"{repo_id}: the Hub has no such repository of this type ({status}); choose another name, where this one "
            "belongs to a dataset or a Space, or a token that may see it."
        )
    if status == 403:
        return (
            f"{repo_id}: the token may not write there (403){said}; choose a name under your own user, or a token "
            "with write permission."
        )
    if status >= 500 or status == 429:
        return f"{repo_id}: the Hub could not take the upload ({status}){said}; {again} later."
    return f"{repo_id}: the Hub refused the upload ({status}){said or f': {error}'}; {again} when that is mended."


def _has_text(card: str) -> bool:
    """Say whether a card holds more than the metadata that the Hub makes for a new repository."""
    try:
        return bool(ModelCard(card, ignore_metadata_errors=True).text.strip())
    except ValueError:
        return True
