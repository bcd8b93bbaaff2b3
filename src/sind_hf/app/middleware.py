"""What the page adds to Gradio's server: limits of requests and uploads, and a document with a script of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from html import escape
from pathlib import Path
from typing import Any

API = "/gradio_api/"
# Requests that change something and that the page needs. Gradio has more, for components that the page does not use.
POSTS = ("upload", "queue/join", "call/", "cancel", "reset")
REFUSED_GETS = ("deep_link", "proxy=", "file=http")

UPLOAD_BYTES = 200 * 2**20  # of one upload, which may be several images
HELD_BYTES = 350 * 2**20  # of all uploads that are not scored yet, and of those that arrive
MESSAGE_BYTES = 2**20  # of every other request
STALLED_AFTER = 15  # seconds without a byte of a request
UPLOAD_SECONDS = 600
MESSAGE_SECONDS = 30
IDLE_CONNECTION_SECONDS = 15
CONNECTIONS = 500

FOLDER = "/sind/"  # of `FILES`
FILES = {"page.js": "text/javascript", "panels.js": "text/javascript", "panels.css": "text/css"}
DESCRIPTION = "Says how good photographs look."
_SOCIAL_TAG = re.compile(r'\s*<meta\s+(?:property|name)="(?:og|twitter):[^>]*>')

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_request_folder: ContextVar[Path] = ContextVar("request_folder")


class RequestLimits:
    """ASGI middleware that refuses requests beyond the limits, and gives every upload its own folder.

    Gradio names an upload by its content, so that two visitors with the same image would share one file, and the end
    of the first would delete it for the second. `folder` is the one that Gradio puts uploads into.
    """

    def __init__(self, app: App, folder: Path) -> None:
        self.app, self.folder = app, folder
        self._arriving: dict[Path, int] = {}  # folder of an upload -> bytes that it declares
        self._arrived: set[Path] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = scope["path"].partition(API)[2]
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if reads and not name.startswith(REFUSED_GETS):
            await self.app(scope, receive, send)
        elif reads or scope["method"] != "POST" or not name.startswith(POSTS):
            await _refuse(send, 404, "There is no such page.")
        elif name.rstrip("/") == "upload":
            await self._upload(scope, receive, send)
        else:
            await self._bounded(scope, receive, send, MESSAGE_BYTES, MESSAGE_SECONDS)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = _declared_bytes(scope)
        if size is None:
            await _refuse(send, 411, "The upload does not say how long it is.")
            return
        if size <= UPLOAD_BYTES and self._held_bytes() + size > HELD_BYTES:
            await _refuse(send, 503, "Too many images are waiting on the server; try again in a minute.")
            return
        folder = self.folder / uuid.uuid4().hex
        self._arriving[folder] = size
        scope["app"].uploaded_file_dir = _RequestFolder(self.folder)
        _request_folder.set(folder)
        stored = False
        try:
            stored = await self._bounded(scope, receive, send, UPLOAD_BYTES, UPLOAD_SECONDS) == 200
        finally:
            del self._arriving[folder]
            if stored:
                self._arrived.add(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _held_bytes(self) -> int:
        held = sum(self._arriving.values())
        for folder in list(self._arrived):
            size = 0
            for path in folder.rglob("*"):
                try:
                    size += path.stat().st_size if path.is_file() else 0
                except OSError:  # it was scored meanwhile
                    continue
            if not size:  # scored, or removed after a while
                shutil.rmtree(folder, ignore_errors=True)
                self._arrived.discard(folder)
            held += size
        return held

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int, seconds: float) -> int | None:
        """Pass a request on while its body keeps to the limits; return the status of the answer."""
        too_long = (413, f"The request is over the limit of {most // 2**20} MB.")
        if (_declared_bytes(scope) or 0) > most:
            await _refuse(send, *too_long)
            return 413
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        received, complete = 0, False
        status: int | None = None
        refusal: tuple[int, str] | None = None

        async def receive_in_time() -> Message:
            nonlocal received, complete, refusal
            if complete:  # only the end of the connection can come now
                return await receive()
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + STALLED_AFTER)):
                    message = await receive()
            except TimeoutError:
                refusal = (408, "The request took too long to arrive.")
                raise
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > most:
                refusal = too_long
                raise ValueError(too_long[1])
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal status
            if refusal is None:
                status = message.get("status", status)
                await send(message)

        try:
            await self.app(scope, receive_in_time, send_unless_refused)
        except Exception:
            if refusal is None:
                raise
        if refusal is not None and status is None:
            await _refuse(send, *refusal)
            return refusal[0]
        return status


class PageDocument:
    """ASGI middleware that serves `FILES`, and puts the script and the page's own title into Gradio's document.

    Gradio inserts scripts and titles with a script of its own, which the previews of social networks do not run.
    """

    def __init__(self, app: App, title: str) -> None:
        self.app, self.title = app, title

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        name = scope["path"].rpartition(FOLDER)[2]
        if scope["path"].endswith(FOLDER + name) and name in FILES:
            await _answer_fresh(send, 200, FILES[name], Path(__file__).with_name(name).read_bytes())
        elif scope["path"].endswith("/"):
            await self._document(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _document(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self.app(scope, receive, hold)
        if dict(held[0]["headers"]).get(b"content-type", b"").startswith(b"text/html"):
            document = b"".join(message.get("body", b"") for message in held[1:]).decode()
            await _answer_fresh(send, held[0]["status"], "text/html", self._own(document).encode())
            return
        for message in held:
            await send(message)

    def _own(self, document: str) -> str:
        title, description = escape(self.title), escape(DESCRIPTION)
        head = (
            f'<meta property="og:title" content="{title}" />'
            f'<meta property="og:description" content="{description}" />'
            f'<meta name="description" content="{description}" />'
            f'<script type="module" src=".{FOLDER}page.js"></script>'
        )
        return _SOCIAL_TAG.sub("", document).replace("</head>", f"{head}</head>", 1)


class _RequestFolder(os.PathLike[str]):
    """Folder of the upload that is being answered; outside of one, the folder of all uploads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __fspath__(self) -> str:
        return str(_request_folder.get(self._folder))

    __str__ = __fspath__  # Gradio compares its text with paths that visitors ask for


def limit_connections(server: Any) -> None:
    """Let a running `uvicorn.Server` refuse too many connections, and close those that send no request."""
    idle: dict[Any, tuple[Any, float]] = {}

    async def close_idle() -> None:
        now = asyncio.get_running_loop().time()
        before = dict(idle)
        idle.clear()
        for connection in list(server.server_state.connections):
            request = getattr(connection, "cycle", None)
            if request is not None and not request.response_complete:
                continue
            last, since = before.get(connection, (request, now))
            if last is not request:
                since = now
            idle[connection] = (request, since)
            if now - since > IDLE_CONNECTION_SECONDS:
                connection.transport.abort()

    server.config.limit_concurrency = CONNECTIONS
    server.config.timeout_notify = 1
    server.config.callback_notify = close_idle


def _declared_bytes(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


async def _refuse(send: Send, status: int, text: str) -> None:
    await _answer(send, status, "text/plain", text.encode(), (b"connection", b"close"))


async def _answer_fresh(send: Send, status: int, kind: str, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await _answer(send, status, kind, body, length, (b"cache-control", b"no-cache"))


async def _answer(send: Send, status: int, kind: str, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    content_type = (b"content-type", f"{kind}; charset=utf-8".encode())
    await send({"type": "http.response.start", "status": status, "headers": [content_type, *headers]})
    await send({"type": "http.response.body", "body": body})
