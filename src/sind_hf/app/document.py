"""The HTML document that Gradio serves, with the page's own script and social tags."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from html import escape
from pathlib import Path
from typing import Any

from sind_hf.app.limits import App, Message, Receive, Send

FOLDER = "/sind/"
FILES = {"page.js": "text/javascript", "panels.js": "text/javascript", "panels.css": "text/css"}
DESCRIPTION = "Says how good photographs look."
_SOCIAL_TAG = re.compile(r'\s*<meta\s+(?:property|name)="(?:og|twitter):[^>]*>')


class PageDocument:
    """ASGI middleware that serves `FILES`, and puts the script and the page's own title into Gradio's document.

    Gradio inserts scripts and titles with a script of its own, which the previews of social networks do not run.

    Args:
        app: Application that serves Gradio's page.
        title: Title of the page.
    """

    def __init__(self, app: App, title: str) -> None:
        self.app, self.title = app, title

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        name = scope["path"].rpartition(FOLDER)[2]
        if scope["path"].endswith(FOLDER + name) and name in FILES:
            await self._answer(send, 200, FILES[name], Path(__file__).with_name(name).read_bytes())
        elif scope["path"].endswith("/"):
            await self._document(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _document(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self.app(scope, receive, hold)
        headers = dict(held[0]["headers"])
        body = b"".join(message.get("body", b"") for message in held[1:])
        if not headers.get(b"content-type", b"").startswith(b"text/html"):
            for message in held:
                await send(message)
            return
        await self._answer(send, held[0]["status"], "text/html", self._own(body.decode()).encode())

    def _own(self, document: str) -> str:
        title, description = escape(self.title), escape(DESCRIPTION)
        head = (
            f'<meta property="og:title" content="{title}" />'
            f'<meta property="og:description" content="{description}" />'
            f'<meta name="description" content="{description}" />'
            f'<script type="module" src=".{FOLDER}page.js"></script>'
        )
        return _SOCIAL_TAG.sub("", document).replace("</head>", f"{head}</head>", 1)

    @staticmethod
    async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
        headers = [
            (b"content-type", f"{kind}; charset=utf-8".encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-cache"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
