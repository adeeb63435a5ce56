"""A server with a language model of its own, which offers the probabilities of chosen tokens as vLLM and SGLang do."""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.server import Reply, Server, fail, serve

VOCABULARY = [*string.printable, *(f" {c}" for c in string.digits + string.ascii_letters), "=1", "red", "re", " red"]
"""The texts of the tokens, by their ids. `=1` shows what happens where an option merges with the ending."""
SPREAD = 3.0
"""Standard deviation of the logits: many tokens are outside the 20 most likely ones."""


def tokenize(text: str, merges: Sequence[str] = ()) -> list[int]:
    """Take the longest token at each place. Tokens with white space or two characters are used only if in `merges`."""
    usable = {t: i for i, t in enumerate(VOCABULARY) if len(t) == 1 or t in merges}
    ids = []
    while text:
        token = max((t for t in usable if text.startswith(t)), key=len)
        ids.append(usable[token])
        text = text[len(token) :]
    return ids


def probabilities(text: str) -> list[float]:
    """Return the probability of each token after a text: any fixed function of it will do."""
    weights = []
    for token in VOCABULARY:
        digest = hashlib.sha256(f"{text}|{token}".encode()).digest()
        weights.append(math.exp(SPREAD * 2 * (int.from_bytes(digest[:6], "big") / 2**48 - 0.5) * math.sqrt(3)))
    return [weight / sum(weights) for weight in weights]


def render(body: dict[str, Any]) -> str:
    """Return the text that the model reads, by a chat template of one line."""
    if "prompt" in body:
        return str(body["prompt"])
    turns = [f"[{m['role']}] {m['content']}" for m in body["messages"]]
    return "".join(turns) + ("" if body.get("continue_final_message") else "[assistant] ")


def describe(kind: str) -> dict[str, Any]:
    """Return the part of `/openapi.json` that says what is offered."""

    def post(name: str) -> dict[str, Any]:
        schema = {"$ref": f"#/components/schemas/{name}"}
        return {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}

    names = ["logprobs", *(["logprob_token_ids", "return_tokens_as_token_ids"] if kind == "vllm" else [])]
    # vLLM has an endpoint of the same name for reranking.
    score = ["query", "items", "label_token_ids", "apply_softmax"] if kind == "sglang" else ["queries", "documents"]
    schemas = {"Completion": names, "Chat": names, "Score": score}
    return {
        "paths": {
            "/v1/completions": post("Completion"),
            "/v1/chat/completions": post("Chat"),
            "/v1/score": post("Score"),
            "/tokenize": post("Tokenize"),
        },
        "components": {"schemas": {n: {"properties": {key: {} for key in p}} for n, p in schemas.items()}},
    }


class TokenModel:
    """Answers by path, as a server of some kind."""

    def __init__(self, server: Server, merges: Sequence[str] = ()) -> None:
        self.server = server
        self.merges = merges

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        path = self.server.paths[number]
        if path == "/tokenize":
            return self.tokenize(body)
        if path == "/v1/score":
            return self.score(body)
        return self.complete(body)

    def tokenize(self, body: dict[str, Any]) -> Reply:
        if "messages" in body:
            # As SGLang, which opens the assistant's turn only without this setting.
            assert "add_generation_prompt" not in body
            return give({"tokens": tokenize(render(body), self.merges)})
        assert body["add_special_tokens"] is False
        return give({"tokens": tokenize(body["prompt"], self.merges)})

    def score(self, body: dict[str, Any]) -> Reply:
        query = body["query"]
        text = query if isinstance(query, str) else "".join(VOCABULARY[i] for i in query)
        known = probabilities(text + (body["items"][0] or ""))
        assert body["apply_softmax"] is False
        return give({"scores": [[known[i] for i in body["label_token_ids"]]], "usage": {"prompt_tokens": 10}})

    def complete(self, body: dict[str, Any]) -> Reply:
        known = probabilities(render(body))
        best = max(range(len(known)), key=known.__getitem__)
        chat = "messages" in body
        ids = body.get("logprob_token_ids")
        if "logprob_token_ids" not in str(self.server.openapi) or not ids:
            count = int(body.get("top_logprobs" if chat else "logprobs", 0))
            ids = sorted(range(len(known)), key=lambda i: -known[i])[:count]
            named = {VOCABULARY[i]: math.log(known[i]) for i in ids}
        else:
            named = {f"token_id:{i}": math.log(known[i]) for i in [*ids, best]}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        if chat:
            top = [{"token": t, "logprob": p} for t, p in named.items()]
            choice["message"] = {"role": "assistant", "content": VOCABULARY[best]}
            choice["logprobs"] = {"content": [{"token": "?", "logprob": 0.0, "top_logprobs": top}]}
        else:
            choice |= {"text": VOCABULARY[best], "logprobs": {"top_logprobs": [named]}}
        return give({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 1}})


def give(content: Any) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def serve_tokens(kind: str, merges: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server that offers what `vllm` or `sglang` does; `plain` offers the most likely tokens only."""
    with serve(lambda body, number: fail(503, "starting")) as server:
        server.openapi = None if kind == "plain" else describe(kind)
        server.behave = TokenModel(server, merges)
        yield server
