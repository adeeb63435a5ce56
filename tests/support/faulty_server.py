"""A catalogue of what servers have been seen to reply, or might: faults, refusals, and odd but usable answers."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from support.server import Reply, prompt

Fate = Literal["answered", "refused", "retried", "outage", "setup"]
"""What becomes of a request that always gets the reply: it is answered; it is refused at once, or after all retries,
while other requests are answered; the command ends after all retries, or at once."""
MAX_BODY = 2**26


@dataclass(frozen=True)
class Fault:
    """A kind of reply."""

    fate: Fate
    reply: Callable[[dict[str, Any]], Reply | bytes | None]

    @property
    def ends(self) -> bool:
        """True if the command ends with exit code 2."""
        return self.fate in ("outage", "setup")


def choose(body: dict[str, Any]) -> str:
    """Return the option of the response that begins with `good`; `1` if there is none."""
    text = prompt(body)
    return "2" if 0 <= text.rfind("bad ") < text.rfind("good ") else "1"


def probabilities(body: dict[str, Any]) -> dict[str, float]:
    """Return the probabilities of the first token."""
    best = choose(body)
    return {best: 0.72, "12".replace(best, ""): 0.18, "The": 0.05}


def answer(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the JSON of a right answer to a chat; its choice and the top level can be changed."""
    message = {"role": "assistant", "content": f"Verdict: {choose(body)}"}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
    if body.get("logprobs"):
        tops = [{"token": token, "logprob": math.log(p)} for token, p in probabilities(body).items()]
        choice["logprobs"] = {"content": [{"token": tops[0]["token"], "top_logprobs": tops}]}
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
    whole = {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}
    choice |= {name: value for name, value in changes.items() if name in choice}
    return whole | {name: value for name, value in changes.items() if name not in choice}


def healthy(body: dict[str, Any], number: int = 0) -> Reply:
    """Answer as a server without faults."""
    return give(answer(body))


def give(content: Any, status: int = 200, /, **headers: str) -> Reply:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return status, {"Content-Type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}, text


# Replies with another status


def status(number: int, fate: Fate, content: Any = None, **headers: str) -> Fault:
    found = {"error": {"message": f"status {number}", "code": number}} if content is None else content
    return Fault(fate, lambda body: give(found, number, **headers))


PAGE = b"<!doctype html><html><head><title>Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
OTHER_JSON: tuple[Any, ...] = (None, 5, "text", True, [], {}, [1])
DEEP = b"[" * 100_000 + b"]" * 100_000

STATUSES: dict[str, Fault] = {
    **{f"status {n}": status(n, "refused") for n in (400, 403, 404, 405, 406, 410, 413, 415, 418, 422, 424, 431, 451)},
    **{f"status {n}": status(n, "outage") for n in (408, 409, 425, 429, 500, 501, 502, 503, 504, 520, 529, 599)},
    **{f"status {n}": status(n, "setup") for n in (401, 402, 407)},
    **{f"status {n}": status(n, "retried", b"") for n in (202, 204, 205, 300, 304)},
    **{
        f"redirect {n}": status(n, "retried", b"", Location="http://127.0.0.1:9/elsewhere")
        for n in (301, 302, 303, 307, 308)
    },
    "redirect to nowhere": status(302, "retried", b"", Location="http://[::1"),
    "redirect to another scheme": status(302, "retried", b"", Location="file:///etc/passwd"),
    "redirect loop": status(308, "retried", b"", Location="/v1/chat/completions"),
    "page 502": status(502, "outage", PAGE),
    "page 403": status(403, "refused", PAGE),
    "empty 400": status(400, "refused", b""),
    "empty 500": status(500, "outage", b""),
    "list in a 422": status(422, "refused", {"detail": [{"loc": ["body", "messages"], "msg": "too odd"}]}),
    "number in a 400": status(400, "refused", 5),
    "deep 400": status(400, "refused", DEEP),
    "bytes in a 400": status(400, "refused", b"\xff\xfe\x00"),
    "control characters": status(400, "refused", {"error": {"message": "\x1b[2J\x1b]0;owned\x07 \x00\u202e no"}}),
    "long 500": status(500, "outage", b"x" * 3_000_000),
    **{
        f"retry after {value[:12]}": status(429, "outage", Retry_After=value)
        for value in ("0", "soon", "-5", "nan", "1e999", "Mon, 99 Foo 2000", "Wed, 21 Oct 999999999999 07:28:00 GMT")
    },
}

# Successes without an answer


def success(content: Any, fate: Fate = "retried", **headers: str) -> Fault:
    return Fault(fate, lambda body: give(content, **headers))


def changed(fate: Fate = "retried", **changes: Any) -> Fault:
    return Fault(fate, lambda body: give(answer(body, **changes)))


def tops(fate: Fate = "retried", *, of_first: Any = -0.1, **others: Any) -> Fault:
    """Answer with another log-probability of the best option."""

    def reply(body: dict[str, Any]) -> Reply:
        known = {choose(body): of_first, **others}
        listed = [{"token": token, "logprob": value} for token, value in known.items()]
        return give(answer(body, logprobs={"content": [{"top_logprobs": listed}]}))

    return Fault(fate, reply)


INTERRUPTED = ("error", "abort", "insufficient_system_resource", "network_error")
WITHHELD = (
    *("content_filter", "content-filter", "content_filter_prompt", "sensitive", "safety", "RECITATION"),
    *("IMAGE_SAFETY", "PROHIBITED_CONTENT", "model_armor", "refusal"),
)
ENDED = ("stop", "tool_calls", "unknown", None)
COMPLETE = ("eos", "eos_token", "stop_sequence", "end_turn", "MAX_TOKENS", None, "tool_calls", "done", 1)
"""The text is there with all of them, also with the last ones, which are unknown."""


def nothing(content: Any, reason: str | None) -> dict[str, Any]:
    """Return the changes that make an answer one without text and log-probabilities."""
    return {"message": {"role": "assistant", "content": content}, "finish_reason": reason, "logprobs": None}


def inside(fate: Fate, **error: Any) -> Fault:
    return success({"error": error}, fate)


WITHOUT_ANSWER: dict[str, Fault] = {
    "empty body": success(b""),
    "white space": success(b" \n "),
    "page 200": success(PAGE, Content_Type="text/html"),
    "plain text": success(b"Service is starting", Content_Type="text/plain"),
    "cut JSON": Fault("retried", lambda body: give(json.dumps(answer(body)).encode()[:-20])),
    "two documents": Fault("retried", lambda body: give(json.dumps(answer(body)).encode() * 2)),
    "events": Fault("retried", lambda body: give(b"data: " + json.dumps(answer(body)).encode() + b"\n\n")),
    **{f"JSON {value}": success(value) for value in OTHER_JSON},
    "deep list": success(DEEP),
    "deep object": success(b'{"choices":' * 5_000 + b"1" + b"}" * 5_000),
    "deep content": changed(message={"content": json.loads("[" * 300 + "]" * 300)}),
    "long number": success(b'{"choices": ' + b"9" * 10_000 + b"}"),
    "invalid UTF-8": success(b'{"choices": [{"message": {"content": "\xff\xfe 1"}}]}'),
    "no choices": changed(choices=[]),
    "choices null": changed(choices=None),
    "choices object": changed(choices={"0": {}}),
    "choices of null": changed(choices=[None]),
    "no message": changed(choices=[{"index": 0}]),
    "message null": changed(message=None),
    "message text": changed(message="1"),
    "content number": changed(message={"content": 1}),
    "content object": changed(message={"content": {"text": "1"}}),
    "part without text": changed(message={"content": [{"type": "text"}]}),
    "part of number": changed(message={"content": [{"type": "text", "text": 1}]}),
    "part null": changed(message={"content": [None]}),
    "error text": success({"error": "upstream is gone"}),
    "error object": inside("retried", message="upstream is gone"),
    "error in the choice": changed(choices=[{"message": {"content": ""}, "error": {"message": "gone"}}]),
    **{f"finished by {reason}": changed(finish_reason=reason) for reason in INTERRUPTED},
    **{f"null, finished by {reason}": changed(**nothing(None, reason)) for reason in ENDED},
    "nothing, unknown end": changed(**nothing("", "other")),
    **{f"error {code} inside": inside("retried", message="gone", code=code) for code in (429, "500", 503, 529, "x")},
    **{
        f"error {code} inside": inside("refused", message="no", code=code)
        for code in (400, "403", "content_filter", "invalid_request_error")
    },
    "error status inside": inside("refused", message="no", status=422),
    "logprobs all null": tops(of_first=None, The=None),
    "logprobs all -inf": tops(of_first=-math.inf),
    **{f"logprob {value}": tops(of_first=value) for value in (math.nan, math.inf, 0.5, 700, 10**400, "-1", True, [-1])},
    "logprob object": tops(of_first={"value": -1}),
    "other logprob nan": tops(The=math.nan),
    "logprobs all 0": tops(of_first=0.0, The=0.0),
    "probabilities of 1.2": tops(of_first=math.log(0.8), The=math.log(0.4)),
    "logprobs text": changed(logprobs="none"),
    "logprobs of null": changed(logprobs={"content": [None]}),
    "logprobs without token": changed(logprobs={"content": [{"top_logprobs": [{"logprob": -1}]}]}),
    "logprobs without value": changed(logprobs={"content": [{"top_logprobs": [{"token": "1"}]}]}),
    **{f"withheld by {reason}": changed("refused", **nothing(None, reason)) for reason in WITHHELD},
    "filter, no message": changed("refused", finish_reason="SAFETY", message=None),
    "refusal field": changed("refused", message={"content": None, "refusal": "I cannot help with that."}),
    "refusal part": changed("refused", message={"content": [{"type": "refusal", "refusal": "I cannot."}]}),
}

# Bodies and messages that are damaged


def encode(body: dict[str, Any]) -> bytes:
    return json.dumps(answer(body)).encode()


def frame(head: str, content: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + content


def raw(fate: Fate, head: str, content: Callable[[dict[str, Any]], bytes] = encode) -> Fault:
    return Fault(fate, lambda body: frame(head, content(body)))


def chunk(body: dict[str, Any], size: int = 7) -> bytes:
    text = encode(body)
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


DAMAGED: dict[str, Fault] = {
    "dropped": Fault("retried", lambda body: None),
    "half a head": Fault("retried", lambda body: b"HTTP/1.1 200 O"),
    "no HTTP": Fault("retried", lambda body: b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP 0.9": Fault("retried", encode),
    "odd status": raw("retried", "HTTP/1.1 2OO OK\nContent-Length: 2"),
    "odd header": raw("retried", "HTTP/1.1 200 OK\nno colon here\nContent-Length: 2"),
    "odd length": raw("retried", "HTTP/1.1 200 OK\nContent-Length: many"),
    "two lengths": raw("retried", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 9"),
    "large header": raw("retried", f"HTTP/1.1 200 OK\nX-Large: {'x' * 300_000}\nContent-Length: 2"),
    "many headers": raw("retried", "HTTP/1.1 200 OK" + "\nX-Many: x" * 30_000 + "\nContent-Length: 2"),
    "body cut": raw("retried", "HTTP/1.1 200 OK\nContent-Length: 99999"),
    "chunks cut": raw("retried", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunk),
    "no chunks": raw("retried", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"),
    "switching protocols": raw("retried", "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade"),
    "no gzip": success(b"{}", Content_Encoding="gzip"),
    "gzip cut": Fault("retried", lambda body: give(gzip.compress(encode(body))[:-30], Content_Encoding="gzip")),
    "gzip six times": success(b"{}", Content_Encoding="gzip, gzip, gzip, gzip, gzip, gzip"),
    "gzip bomb": success(gzip.compress(bytes(MAX_BODY + 2**21), 9), Content_Encoding="gzip"),
    "bomb in an error": status(400, "refused", gzip.compress(bytes(MAX_BODY), 9), Content_Encoding="gzip"),
    "unknown encoding": Fault("retried", lambda body: give(zlib.compress(encode(body)), Content_Encoding="zpaq")),
}

# Odd answers that can be read


def with_usage(**usage: Any) -> Fault:
    return changed("answered", usage=usage)


def rewritten(change: Callable[[bytes], bytes], **headers: str) -> Fault:
    return Fault("answered", lambda body: give(change(encode(body)), **headers))


def completion_logprobs(body: dict[str, Any]) -> Reply:
    named = {token: math.log(p) for token, p in probabilities(body).items()}
    return give(answer(body, logprobs={"tokens": ["1"], "top_logprobs": [named]}))


def two_choices(body: dict[str, Any]) -> Reply:
    whole = answer(body)
    other = {**answer({**body, "messages": [{"content": "good bad "}]})["choices"][0], "index": 1}
    return give(whole | {"choices": [other, whole["choices"][0]]})


def marked(mark: str) -> Fault:
    def reply(body: dict[str, Any]) -> Reply:
        listed = [{"token": mark + token, "logprob": math.log(p)} for token, p in probabilities(body).items()]
        return give(answer(body, logprobs={"content": [{"top_logprobs": listed}]}))

    return Fault("answered", reply)


def byte_token(body: dict[str, Any]) -> Reply:
    tops = [{"token": f"<0x{ord(choose(body)):02X}>", "logprob": -0.2}, {"token": "The", "logprob": -3.0}]
    return give(answer(body, logprobs={"content": [{"top_logprobs": tops}]}))


ODD: dict[str, Fault] = {
    **{f"complete by {reason}": changed("answered", finish_reason=reason) for reason in COMPLETE},
    "usage infinity": with_usage(prompt_tokens=math.inf, completion_tokens=math.inf),
    "usage nan": with_usage(prompt_tokens=math.nan, completion_tokens=math.nan),
    "usage 1e30": with_usage(prompt_tokens=1e30, completion_tokens=10**30),
    "usage below 0": with_usage(prompt_tokens=-5, completion_tokens=-1),
    "usage text": with_usage(prompt_tokens="50", completion_tokens="many"),
    "usage lists": with_usage(prompt_tokens=[50], completion_tokens={}),
    "usage true": with_usage(prompt_tokens=True, completion_tokens=False),
    "usage null": changed("answered", usage=None),
    "usage is a list": changed("answered", usage=[1, 2]),
    "usage is text": changed("answered", usage="50"),
    "lone surrogate": Fault(
        "answered",
        lambda body: give(answer(body, message={"content": f"Verdict: {choose(body)} \ud83d", "role": "\udc00"})),
    ),
    "surrogate in a token": tops("answered", of_first=math.log(0.8), **{"\ud800": -3.0}, **{"12": -9.0}),
    "byte order mark": rewritten(lambda text: b"\xef\xbb\xbf" + text),
    "UTF-16": rewritten(lambda text: text.decode().encode("utf-16")),
    "UTF-32": rewritten(lambda text: text.decode().encode("utf-32-le")),
    "white space around": rewritten(lambda text: b"\n\n " + text + b"\n"),
    "unknown charset": rewritten(bytes, Content_Type="application/json; charset=no-such-thing"),
    "charset of bytes": rewritten(bytes, Content_Type='application/json; charset="base64"'),
    "charset utf-7": rewritten(bytes, Content_Type="application/json; charset=utf-7"),
    "no content type": rewritten(bytes, Content_Type="\u00fc"),
    "gzip": rewritten(gzip.compress, Content_Encoding="gzip"),
    "gzip twice": rewritten(lambda text: gzip.compress(gzip.compress(text)), Content_Encoding="gzip, gzip"),
    "deflate": rewritten(zlib.compress, Content_Encoding="deflate"),
    "numbers elsewhere": changed("answered", created=math.nan, big=10**4000, tiny=-math.inf),
    "same name twice": rewritten(lambda text: b'{"choices": null, ' + text[1:]),
    "status 201": Fault("answered", lambda body: give(answer(body), 201)),
    "two choices": Fault("answered", two_choices),
    "no error": changed("answered", error=None),
    "empty error": changed("answered", error={"message": "", "code": None}),
    "logprob null": tops("answered", of_first=math.log(0.8), The=None),
    "logprob -inf": tops("answered", of_first=math.log(0.8), The=-math.inf),
    "logprob 1e-9": tops("answered", of_first=1e-9),
    "logprobs of completions": Fault("answered", completion_logprobs),
    "mark of BPE": marked("\u0120"),
    "byte token": Fault("answered", byte_token),
    "rounded up to 1.03": tops("answered", of_first=math.log(0.8), The=math.log(0.23)),
    "mark of SentencePiece": marked("\u2581"),
    "content parts": Fault(
        "answered",
        lambda body: give(answer(body, message={"content": [{"type": "text", "text": f"Verdict: {choose(body)}"}]})),
    ),
    "chunks": raw(
        "answered", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", lambda body: chunk(body) + b"0\r\nX-End: 1\r\n\r\n"
    ),
    "HTTP 1.0": raw("answered", "HTTP/1.0 200 OK\nContent-Type: application/json"),
    "early hints": raw("answered", "HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\nConnection: close"),
    "no reason": raw("answered", "HTTP/1.1 200 \nConnection: close"),
    "cookies": rewritten(bytes, Set_Cookie="a=b; Domain=.com; Path=/; Expires=never; \u00ff"),
    "retry after in a 200": rewritten(bytes, Retry_After="99999"),
}

FAULTS: dict[str, Fault] = {**STATUSES, **WITHOUT_ANSWER, **DAMAGED, **ODD}
"""All kinds of replies, by name."""
