"""Serve the page until Ctrl-C."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette

from rlaif_framework.annotation.access import Access, is_wildcard
from rlaif_framework.errors import SpecError

STOPS = (signal.SIGINT, signal.SIGTERM)

CLOSING_SECONDS = 2
"""Time for answers that are under way when the server is stopped."""


class _Server(uvicorn.Server):
    """A server that is stopped by Ctrl-C, and then returns: stopping it is how annotation ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal, unless the caller has this process ignore it, as shells do in the background."""
        handled = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
        earlier = [(number, signal.signal(number, self.handle_exit)) for number in handled]
        try:
            yield
        finally:
            for number, handler in earlier:
                signal.signal(number, handler)


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        SpecError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SpecError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
    # Inherited by its connections. Without it, the body of a response waits up to 40 ms for an acknowledgement of its
    # headers: asyncio sets it only for sockets that were created with the number of the protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def make_urls(listening: socket.socket, access: Access) -> tuple[str, str]:
    """Return the URLs of the pages for comparing and `progress`. Browsers send the fragment, the token, to nobody."""
    port = listening.getsockname()[1]
    host = socket.gethostname() if is_wildcard(access.host) else access.host
    host = f"[{host}]" if ":" in host else host
    pages = (("", access.token), ("progress", access.progress_token))
    compare, progress = (f"http://{host}:{port}/{page}#token={quote(token, safe='')}" for page, token in pages)
    return compare, progress


def serve_app(app: Starlette, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application until Ctrl-C or SIGTERM.

    Args:
        app: The application.
        listening: An open socket; it is closed at the end.
        ready: Called before the first request is answered.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    with listening:
        ready()
        _Server(config).run(sockets=[listening])
