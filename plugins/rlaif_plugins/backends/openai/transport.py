"""Exchange single HTTP messages with servers: bounded bodies, no redirects, no key in what is returned."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx2

from rlaif_plugins.backends.openai.redaction import Redactor

MAX_BODY = 2**26
"""Maximum number of bytes of a response, after decompression: 64 MiB."""
MAX_ERROR_BODY = 2**20
"""Maximum number of bytes of an error that are read."""
MAX_PAGE = 20_000
"""Maximum number of characters of a response that is not JSON, such as an HTML page."""
PARTS = 50
"""Number of parts of a body that are kept if it is too large, for an excerpt."""
MAX_DEPTH = 100
"""Maximum number of lists and objects around each other in a response."""
TOO_DEEP = "its lists and objects are nested too deeply"
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
"""Errors before a request is sent."""


class ConnectionFault(Exception):
    """There is no response: the connection failed or was closed, or the response is not HTTP."""

    def __init__(self, message: str, *, is_lost: bool = True, is_http: bool = True, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout
        self.is_lost = is_lost
        """True if the server may have received the request."""
        self.is_http = is_http
        """False if what the server sent is not HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response. It does not contain the key."""

    status: int
    reason: str
    data: Any = None
    """The parsed JSON; None if it is not JSON."""
    fault: str | None = None
    """Why there is no JSON; None if there is."""
    excerpt: str = ""
    """The start of a body that is not JSON, on one line."""
    retry_after: str | None = None
    location: str | None = None
    """Where a redirect leads."""
    is_lost: bool = False
    """True if the request succeeded, but the connection ended before the body was whole."""

    @property
    def is_success(self) -> bool:
        """True if the status says that the request succeeded."""
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """The server's error message, on one line."""
        data = self.data
        # OpenAI nests `message` in `error`; FastAPI has `detail`.
        for name in ("error", "message", "detail"):
            if isinstance(data, dict) and name in data:
                data = data[name]
        if self.fault is not None:
            return self.excerpt or self.reason
        return join_lines(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)) or self.reason


class Transport:
    """Sends requests to the servers of one call of the backend."""

    def __init__(self, client: httpx2.AsyncClient, redactor: Redactor) -> None:
        self.client = client
        self.redactor = redactor

    async def get(self, url: str, timeout: float) -> Response:
        """Get a document; see `exchange`."""
        return await self._exchange("GET", url, None, timeout)

    async def post(self, url: str, body: Any, timeout: float) -> Response:
        """Send JSON; see `exchange`."""
        return await self._exchange("POST", url, encode_json(body), timeout)

    async def _exchange(self, method: str, url: str, content: bytes | None, timeout: float) -> Response:
        """Return the response to a request, whatever its status is. Redirects are not followed.

        Raises:
            ConnectionFault: There is no response.
        """
        try:
            async with asyncio.timeout(timeout):
                request = self.client.build_request(method, url, content=content)
                # Streamed, so that the body can be bounded. The key is not sent to where a redirect leads.
                response = await self.client.send(request, stream=True, follow_redirects=False)
                try:
                    body, fault, is_cut = await _read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise ConnectionFault(f"did not answer within {timeout:g} s", is_timeout=True) from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            reason = self.redactor.redact(f"{type(error).__name__} {error}").strip()
            raise ConnectionFault(
                reason,
                is_lost=not isinstance(error, UNSENT),
                is_http=not isinstance(error, httpx2.RemoteProtocolError | httpx2.InvalidURL),
            ) from None
        return self._convert(response, body, fault, is_cut)

    def _convert(self, response: httpx2.Response, body: bytes, fault: str | None, is_cut: bool) -> Response:
        data, excerpt = None, ""
        if fault is None:
            try:
                text = decode(body)
                data = parse_json(text)
                # The text is looked through at once; its parts only if need be, since there may be thousands.
                data = self.redactor.redact_data(data) if self.redactor.is_in(text) else data
            except ValueError as error:
                fault = str(error)
        if fault is not None:
            page = body[: 4 * MAX_PAGE].decode("utf-8-sig", errors="replace")[:MAX_PAGE]
            excerpt = join_lines(self.redactor.redact(page))
        return Response(
            response.status_code,
            self.redactor.redact(response.reason_phrase),
            data,
            fault,
            excerpt,
            response.headers.get("Retry-After"),
            self._redact_header(response.headers.get("Location")),
            is_cut and response.is_success,
        )

    def _redact_header(self, value: str | None) -> str | None:
        return None if value is None else join_lines(self.redactor.redact(value))


async def _read_body(response: httpx2.Response) -> tuple[bytes, str | None, bool]:
    """Return a body, why it cannot be read (None if it can), and whether the connection ended before it was whole.

    The library decompresses piece by piece, so that a small body cannot inflate to one that fills the memory.
    """
    if response.status_code < 200:  # such as Switching Protocols, after which there is no HTTP
        return b"", "it has no body", False
    limit = MAX_BODY if response.is_success else MAX_ERROR_BODY
    parts, size = [], 0
    try:
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > limit:
                return b"".join(parts[:PARTS]), f"its body has more than {limit // 2**20} MiB", False
    except httpx2.RequestError as error:
        is_cut = not isinstance(error, httpx2.DecodingError)
        return b"".join(parts), f"its body is incomplete or damaged ({type(error).__name__})", is_cut
    return b"".join(parts), None, False


def decode(body: bytes) -> str:
    """Decode JSON in UTF-8, UTF-16 or UTF-32, whatever the headers say.

    Raises:
        ValueError: There is nothing to decode, or it is not text.
    """
    if not body.strip():
        raise ValueError("its body is empty")
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError as error:
        raise ValueError(f"its body is not Unicode text: {error.reason}") from None


def parse_json(text: str) -> Any:
    """Parse JSON. Lone surrogates in texts are replaced by `?`.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        data = json.loads(text)
        # Half of a surrogate pair is valid JSON, but cannot be written to a file.
        if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
            data = json.loads(json.dumps(data, ensure_ascii=False).encode(errors="replace"))
    except json.JSONDecodeError as error:
        raise ValueError(f"its body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # Python converts at most 4,300 digits to an integer
        raise ValueError("it has a number with too many digits") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _check_depth(data)
    return data


def _check_depth(data: Any) -> None:
    """Check that parsed JSON is not nested so deeply that code that calls itself fails.

    Raises:
        ValueError: It is.
    """
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def encode_json(data: Any) -> bytes:
    """Convert a request to JSON. Lone surrogates in texts are replaced by `?`, since servers reject them."""
    text = json.dumps(data, ensure_ascii=False)
    return text.encode(errors="replace")


def join_lines(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())
