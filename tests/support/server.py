"""A real HTTP server that speaks enough of OpenAI's API, and misbehaves as it is told."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
Behave = Callable[[dict[str, Any], int], Reply | bytes | None]
"""Gets a request's body and its number, from 0; gives a reply, bytes to send as they are, or None for nothing. After
bytes or nothing, the connection is closed."""


class Server(ThreadingHTTPServer):
    """Answers by `behave` after `delay` seconds, and records what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Behave, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.delay = delay
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.received: set[int] = set()
        """Numbers of the requests whose reply the client has read, as it has used the connection twice since."""
        self.models: list[dict[str, Any]] | None = None
        """What `/v1/models` lists, if there is one."""
        self.listed = 0
        self.openapi: dict[str, Any] | None = None
        """The description of the API at `/openapi.json`, if there is one."""
        self.described = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        return [prompt(body) for body in self.bodies]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    last: tuple[int, ...] = ()
    """Numbers of the last two requests on this connection."""

    def do_GET(self) -> None:
        server = self.server
        server.listed += self.path == "/v1/models"
        server.described += self.path == "/openapi.json"
        models = None if server.models is None else {"object": "list", "data": server.models}
        found = {"/v1/models": models, "/openapi.json": server.openapi}.get(self.path)
        content = json.dumps(found or {}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.bodies)
            server.received.update(self.last[:-1])
            self.last = (*self.last[-1:], number)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            server.times.append(time.monotonic())
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            time.sleep(server.delay)
            reply = server.behave(body, number)
        finally:
            with server.lock:
                server.in_flight -= 1
        if reply is None or isinstance(reply, bytes):
            self.close_connection = True
            self.wfile.write(reply or b"")
            return
        status, headers, content = reply
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serve(behave: Behave | None = None, delay: float = 0.0) -> Iterator[Server]:
    """Run a server for the length of a block."""
    server = Server(behave or answer(), delay)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def prompt(body: dict[str, Any]) -> str:
    """The text of a request, whichever the mode."""
    return str(body["prompt"] if "prompt" in body else body["messages"][0]["content"])


def fail(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI words it."""
    error = json.dumps({"error": {"message": message, "type": "made", "code": status}})
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, error.encode()


def complete(
    body: dict[str, Any], text: str = "1", logprobs: dict[str, float] | None = None, tokens: tuple[int, int] = (10, 1)
) -> Reply:
    """A completion; `logprobs` holds the first token's probabilities."""
    tops = {token: math.log(p) for token, p in (logprobs or {}).items()}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
    if "prompt" in body:
        choice["text"] = text
        if logprobs is not None and "logprobs" in body:
            choice["logprobs"] = {"tokens": [text], "top_logprobs": [tops]}
    else:
        choice["message"] = {"role": "assistant", "content": text}
        if logprobs is not None and body.get("logprobs"):
            top = [{"token": token, "logprob": value} for token, value in tops.items()]
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}]}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return 200, {"Content-Type": "application/json"}, json.dumps({"choices": [choice], "usage": usage}).encode()


def answer(text: str = "1", logprobs: dict[str, float] | None = None) -> Behave:
    """Always the same answer."""
    known = {"1": 0.6, "2": 0.2} if logprobs is None else logprobs
    return lambda body, number: complete(body, text, known)
