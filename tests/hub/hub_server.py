"""A Hub on localhost: the wire protocol as huggingface_hub speaks it, with accounts, history and failures on demand.

Large files are content-addressed and arrive by the LFS protocol (batch, PUT, verify); a commit that names an object
which never arrived is refused. Branches have real histories: every commit can be downloaded by its hash for ever.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITER, READER = "hf_WriterWriterWriterWriterWriter", "hf_ReaderReaderReaderReaderReader"
USER = "user"
LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "other"}
PREFIXES = {"model": "", "space": "spaces/", "dataset": "datasets/"}


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """What Git calls it; of a large file, the hash that it is stored under."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    message: str
    files: dict[str, File]


@dataclass
class Repository:
    kind: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, message: str, files: dict[str, File]) -> Commit:
        parent = self.branches.get(branch)
        text = json.dumps([parent, message, sorted((path, file.oid) for path, file in files.items())])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, message, files)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))

    def history(self, branch: str = "main") -> list[Commit]:
        """From the newest."""
        found, oid = [], self.branches.get(branch)
        while oid is not None:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found


class Hub:
    """What the server knows.

    `failures` maps a step (create, validate, preupload, batch, put, verify, commit, read) to a status, or to `"drop"`:
    the connection is closed in the middle of the request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.failures: dict[str, int | str] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        commit = self.repositories[repo_id].at(revision)
        assert commit is not None
        return {path: file.content for path, file in commit.files.items()}


@contextmanager
def hub_server() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Answer(Exception):
    def __init__(self, status: int, document: Any = None, **headers: str) -> None:
        self.status, self.document, self.headers = status, document, headers


def _error(status: int, message: str, code: str | None = None) -> _Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _Answer(status, {"error": message}, **headers)


_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|space|dataset)s/{_NAME}"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{_API}/branch/(?P<revision>[^/]+)", "branch"),
    ("POST", rf"/(?:spaces/)?{_NAME}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", "put"),
    ("POST", r"/storage/(?P<oid>[0-9a-f]{64})/verify", "verify"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("HEAD|GET", rf"/(?:spaces/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "read"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, parts.path))
        found = [
            (name, match)
            for methods, pattern, name in _ROUTES
            if self.command in methods.split("|") and (match := re.fullmatch(pattern, parts.path))
        ]
        if not found:
            self._body()
            self._send(_error(404, f"no route {self.command} {parts.path}"))
            return
        name, match = found[0]
        failure = self.hub.failures.get(name)
        if failure == "drop":
            self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body()
        try:
            if isinstance(failure, int):
                raise _error(failure, "told to fail")
            arguments = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            with self.hub.lock:
                getattr(self, f"_do_{name}")(body=body, query=parse_qs(parts.query), **arguments)
        except _Answer as answer:
            self._send(answer)

    do_GET = do_POST = do_PUT = do_HEAD = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, answer: _Answer) -> None:
        document = answer.document
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # --- who asks ----------------------------------------------------------------------------------------------------

    def _account(self) -> str | None:
        """write, read, or None for nobody."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        known = {f"Bearer {WRITER}": "write", f"Bearer {READER}": "read"}
        if header not in known:
            raise _error(401, "Invalid credentials in Authorization header")
        return known[header]

    def _writer(self, namespace: str) -> None:
        account = self._account()
        if account is None:
            raise _error(401, "Invalid username or password.")
        if account != "write" or namespace != USER:
            raise _error(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')

    def _repository(self, repo: str, kind: str = "model") -> Repository:
        account = self._account()
        found = self.hub.repositories.get(repo)
        if found is None or found.kind != kind or (found.private and account is None):
            raise _error(401 if account is None else 404, "Repository not found", "RepoNotFound")
        return found

    def _commit_of(self, repository: Repository, revision: str) -> Commit:
        found = repository.at(revision)
        if found is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    # --- repositories ------------------------------------------------------------------------------------------------

    def _do_whoami(self, body: bytes, query: Any) -> None:
        if self._account() is None:
            raise _error(401, "Invalid username or password.")
        raise _Answer(200, {"type": "user", "name": USER})

    def _do_create(self, body: bytes, query: Any) -> None:
        asked = json.loads(body)
        namespace, kind = asked.get("organization") or USER, asked.get("type") or "model"
        self._writer(namespace)
        if kind == "space" and asked.get("sdk") not in ("gradio", "docker", "static"):
            raise _error(400, '"sdk" must be one of [gradio, docker, static]')
        repo = f"{namespace}/{asked['name']}"
        url = f"{self.hub.url}/{PREFIXES[kind]}{repo}"
        if repo in self.hub.repositories:
            raise _Answer(409, {"error": "You already created this repo", "url": url})
        made = Repository(kind, asked.get("visibility") == "private")
        made.add("main", "initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        self.hub.repositories[repo] = made
        raise _Answer(200, {"url": url, "name": repo, "id": repo})

    def _do_branch(self, body: bytes, query: Any, kind: str, repo: str, revision: str) -> None:
        self._writer(repo.split("/")[0])
        repository = self._repository(repo, kind)
        if revision in repository.branches:
            raise _error(409, "Reference already exists")
        repository.branches[revision] = repository.branches["main"]
        raise _Answer(201, {})

    def _do_info(self, body: bytes, query: Any, kind: str, repo: str, revision: str = "main") -> None:
        repository = self._repository(repo, kind)
        commit = self._commit_of(repository, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        raise _Answer(
            200,
            {
                "_id": "0",
                "id": repo,
                "modelId": repo,
                "sha": commit.oid,
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            },
        )

    # --- uploads -----------------------------------------------------------------------------------------------------

    def _do_validate(self, body: bytes, query: Any) -> None:
        content = json.loads(body)["content"]
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        errors, warnings = [], []
        if match is None:
            warnings.append("empty or missing yaml metadata in repo card")
        else:
            try:
                data = yaml.safe_load(match[1]) or {}
            except yaml.YAMLError as error:
                raise _Answer(400, {"errors": [{"message": str(error)}], "warnings": []}) from None
            if "license" in data and data["license"] not in LICENCES:
                errors.append(f'"license" must be one of {sorted(LICENCES)}')
            for model in data.get("model-index", []):
                for result in model["results"]:
                    if not re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", result["dataset"]["type"], re.ASCII):
                        errors.append('"model-index[0].results[0].dataset.type" fails to match the required pattern')
                    for metric in result["metrics"]:
                        if not isinstance(metric["value"], (int, float, str)):
                            errors.append('"value" is required')
        said = {"errors": errors, "warnings": warnings}
        problems = {name: [{"message": text} for text in texts] for name, texts in said.items()}
        raise _Answer(400 if errors else 200, problems)

    def _do_preupload(self, body: bytes, query: Any, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(repo, kind)
        self._writer(repo.split("/")[0])
        there = self._commit_of(repository, revision).files
        answer = []
        for file in json.loads(body)["files"]:
            base64.b64decode(file["sample"], validate=True)
            large = file["path"].endswith((".safetensors", ".png", ".bin")) or file["size"] > 10_000_000
            known = there.get(file["path"])
            answer.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    **({"oid": known.oid} if known else {}),
                }
            )
        raise _Answer(200, {"files": answer})

    def _do_batch(self, body: bytes, query: Any, repo: str) -> None:
        self._writer(repo.split("/")[0])
        asked = json.loads(body)
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
        objects = []
        for each in asked["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/storage/{each['oid']}?signed=1"},
                "verify": {"href": f"{self.hub.url}/storage/{each['oid']}/verify"},
            }
            objects.append({**each} if each["oid"] in self.hub.objects else {**each, "actions": actions})
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def _do_put(self, body: bytes, query: Any, oid: str) -> None:
        if query.get("signed") != ["1"] or self.headers.get("Authorization"):
            raise _error(403, "the storage wants a signed address, and no token")
        if hashlib.sha256(body).hexdigest() != oid:
            raise _error(400, "the content is not what its hash says")
        self.hub.objects[oid] = body
        raise _Answer(200, {})

    def _do_verify(self, body: bytes, query: Any, oid: str) -> None:
        asked = json.loads(body)
        stored = self.hub.objects.get(oid)
        if stored is None or asked != {"oid": oid, "size": len(stored)}:
            raise _error(404, "the object did not arrive")
        raise _Answer(200, {})

    def _do_commit(self, body: bytes, query: Any, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(repo, kind)
        self._writer(repo.split("/")[0])
        files = dict(self._commit_of(repository, revision).files)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        assert header["key"] == "header"
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"], validate=True), False)
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _error(400, f"object {value['oid']} was never uploaded")
                files[value["path"]] = File(self.hub.objects[value["oid"]], True)
            elif operation["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise _error(400, f"{value['path']} is not there to be deleted")
            else:
                raise _error(400, f"operation {operation['key']} is not known")
        commit = repository.add(revision, header["value"]["summary"], files)
        url = f"{self.hub.url}/{PREFIXES[kind]}{repo}/commit/{commit.oid}"
        raise _Answer(200, {"success": True, "commitOid": commit.oid, "commitUrl": url})

    # --- downloads ---------------------------------------------------------------------------------------------------

    def _do_tree(self, body: bytes, query: Any, kind: str, repo: str, revision: str, path: str = "") -> None:
        commit = self._commit_of(self._repository(repo, kind), revision)
        folder = f"{path}/" if path else ""
        found = {name: file for name, file in commit.files.items() if name.startswith(folder)}
        if path and not found:
            raise _error(404, f"{path} does not exist", "EntryNotFound")
        rows = [
            {"type": "file", "path": name, "oid": file.oid, "size": len(file.content)}
            | ({"lfs": {"oid": file.oid, "size": len(file.content), "pointerSize": 134}} if file.lfs else {})
            for name, file in sorted(found.items())
        ]
        raise _Answer(200, rows)

    def _do_read(self, body: bytes, query: Any, repo: str, revision: str, path: str) -> None:
        kind = "space" if self.path.startswith("/spaces/") else "model"
        commit = self._commit_of(self._repository(repo, kind), revision)
        file = commit.files.get(path)
        if file is None:
            answer = _error(404, "Entry not found", "EntryNotFound")
            answer.headers["X-Repo-Commit"] = commit.oid
            raise answer
        raise _Answer(
            200,
            file.content,
            **{"ETag": f'"{file.oid}"', "X-Repo-Commit": commit.oid, "Content-Type": "application/octet-stream"},
        )
