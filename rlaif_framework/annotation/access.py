"""Who may use the pages: tokens for all data, checks of `Host` and `Origin`, and headers for browsers.

The tokens and the port are kept beside the answers, so that pages which are open go on after a restart.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif_framework.errors import SpecError
from rlaif_framework.files import atomic_path

MIN_TOKEN = 16
"""Minimum length of a token in characters."""

HEADERS = {
    # Nothing is loaded from elsewhere, no script or style of a text runs, and no other page can embed this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


PROGRESS = "/api/progress"
"""Path of the measurements, which name the models: it has a token of its own, which annotators do not know."""


class SavedAccess(BaseModel):
    """What the next start with the same file of answers uses again."""

    token: str = Field(min_length=MIN_TOKEN)
    progress_token: str = Field(min_length=MIN_TOKEN)
    port: int = Field(ge=1, le=65535)

    @staticmethod
    def place(answers: Path) -> Path:
        """Return the path of the file: `.answers.sqlite.access` beside `answers.sqlite`."""
        path = Path(os.path.realpath(answers))  # `.` has no name
        return path.with_name(f".{path.name}.access")

    @classmethod
    def read(cls, answers: Path) -> SavedAccess | None:
        """Return what the last start has saved; None if there is nothing that can be used."""
        try:
            return cls.model_validate_json(cls.place(answers).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, answers: Path) -> None:
        """Save it in a file that only its owner can read."""
        with atomic_path(self.place(answers)) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(self.model_dump_json(), encoding="utf-8")


@dataclass(frozen=True)
class Access:
    """The tokens, and the address that the server listens on."""

    token: str
    """Of those who compare."""
    host: str = "127.0.0.1"
    progress_token: str = field(default_factory=secrets.token_urlsafe)
    """Of the page `progress`."""

    @classmethod
    def create(cls, host: str, token: str | None, saved: SavedAccess | None = None) -> Access:
        """Check the options of the command, and take tokens that are not given from the last start, or random ones.

        Raises:
            SpecError: Another host than loopback has no token, or the token is too short.
        """
        progress_token = saved.progress_token if saved else secrets.token_urlsafe()
        if token is None:
            if not is_loopback(host):
                raise SpecError(
                    f"--host {host}: others can reach this address, so it needs --token TEXT with at least {MIN_TOKEN} "
                    "characters that they cannot guess"
                )
            return cls(saved.token if saved else secrets.token_urlsafe(), host, progress_token)
        if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise SpecError(f"--token: it must have at least {MIN_TOKEN} characters of ASCII, without spaces")
        return cls(token, host, progress_token)

    def allows_host(self, header: str) -> bool:
        """Return True if a browser that was given this server's URL sends such a `Host` header.

        A page of a stranger whose name resolves to this machine ("DNS rebinding") has its own name in it.
        """
        try:
            name = (urlsplit(f"//{header}").hostname or "").lower()
        except ValueError:
            return False
        if is_loopback(self.host):
            return is_loopback(name)
        if name == self.host.lower() or is_loopback(name):
            return True
        return is_wildcard(self.host) and (_is_address(name) or name in _own_names())

    def allows_token(self, path: str, authorization: str) -> bool:
        """Return True if an `Authorization` header has the token of a path."""
        token = self.progress_token if path == PROGRESS else self.token
        return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())


class Guard:
    """ASGI middleware that refuses requests from elsewhere, and adds headers to all responses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        fault = self._find_fault(scope["path"], Headers(scope=scope))
        app = self.app if fault is None else JSONResponse({"error": fault[1]}, fault[0])
        await app(scope, receive, send_with_headers)

    def _find_fault(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self.access.allows_host(host):
            return 403, "this server has another name"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "the request comes from another page"
        if path.startswith("/api/") and not self.access.allows_token(path, headers.get("authorization", "")):
            return 401, "open the URL that the command printed: it has the token"
        return None


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_wildcard(host: str) -> bool:
    """Return True for the address that stands for all addresses of this machine."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _own_names() -> Iterable[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}
