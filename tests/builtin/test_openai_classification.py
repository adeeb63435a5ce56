"""The classification of responses is a total function: any JSON is an answer, a refusal or a fault."""

from __future__ import annotations

import json
import math
import random
from contextlib import suppress
from typing import Any

import pytest

from rlaif_plugins.backends.openai.classification import PassingFault, Reading, Refusal, SetupFault, classify
from rlaif_plugins.backends.openai.label_tokens import read_methods, read_token_ids
from rlaif_plugins.backends.openai.lengths import read_context
from rlaif_plugins.backends.openai.options import option_weights
from rlaif_plugins.backends.openai.reading import Completion, read_completion, read_scores
from rlaif_plugins.backends.openai.redaction import Redactor
from rlaif_plugins.backends.openai.transport import Response, decode, parse_json
from support.faulty_server import answer
from support.token_server import describe

BODY = {"messages": [{"role": "user", "content": "good bad "}], "logprobs": True, "label_token_ids": [1, 2]}
COMPLETION = {
    "choices": [{"text": "1", "finish_reason": "length", "logprobs": {"tokens": ["1"], "top_logprobs": [{"1": -0.5}]}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    "error": None,
}
SCORES = {"scores": [[0.25, 0.5]], "usage": {"prompt_tokens": 5}}
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**400, 0.5, 1e308, math.inf, -math.inf, math.nan, "", "1", "nan", "safety"),
    *([], {}, [None], [[]], [{}], {"content": None}, {"error": {}}, "\ufffd\x00\x1b[2J", "x" * 1000, {"0": 0}),
    *([1] * 50, {"message": {"code": 5}}, [{"token": "1", "logprob": 0.5}], {"1": None, "2": -1}, {"type": "text"}),
)


def mutate(data: Any, stream: random.Random) -> Any:
    """Replace, remove, double or add one value, anywhere in parsed JSON."""
    if not isinstance(data, dict | list) or not data or stream.random() < 0.15:
        return stream.choice(JUNK)
    keys = list(data) if isinstance(data, dict) else range(len(data))
    key, how = stream.choice(list(keys)), stream.random()
    changed: Any = data.copy()
    if how < 0.15:
        del changed[key]
    elif how < 0.25 and isinstance(changed, list):
        changed.insert(key, changed[key])
    elif how < 0.35 and isinstance(changed, dict):
        changed[stream.choice(["error", "choices", "refusal", "text", "logprobs", "usage"])] = stream.choice(JUNK)
    else:
        changed[key] = mutate(changed[key], stream)
    return changed


def check(reading: Reading) -> None:
    assert isinstance(reading, Completion | Refusal | PassingFault | SetupFault)
    if isinstance(reading, Completion):
        assert isinstance(reading.text, str)
        assert 0 <= reading.prompt_tokens <= 10**7
        assert 0 <= reading.generated_tokens <= 10**7
        assert all(isinstance(token, str) and p <= 0 for token, p in reading.logprobs)
        assert all(isinstance(token, int) and p <= 0 for token, p in reading.by_id.items())
        weights = option_weights(["1", "2"], reading.logprobs)
        assert weights is None or all(math.isfinite(weight) and weight >= 0 for weight in weights)
    elif not isinstance(reading, PassingFault):
        assert isinstance(reading.message, str)


@pytest.mark.parametrize("start", range(10))
@pytest.mark.parametrize("kind", ["chat", "completion", "scores"])
def test_any_mutation_of_an_answer_has_an_outcome(kind: str, start: int) -> None:
    stream = random.Random(f"{kind} {start}")
    whole = {"chat": answer(BODY), "completion": COMPLETION, "scores": SCORES}[kind]
    for _ in range(200):
        data: Any = whole
        for _ in range(stream.randrange(1, 4)):
            data = mutate(data, stream)
        status = stream.choice([200, 200, 200, 201, 400, 404, 429, 500, 302, 401])
        response = Response(status, "reason", data)
        check(classify(response, BODY, read_scores if kind == "scores" else read_completion))
        assert isinstance(response.message, str)


@pytest.mark.parametrize("start", range(5))
def test_any_mutation_of_the_bytes_of_an_answer_has_an_outcome(start: int) -> None:
    stream, text = random.Random(start), json.dumps(answer(BODY)).encode()
    redactor = Redactor("sk-0123456789abcdef")
    for _ in range(200):
        body = bytearray(text)
        for _ in range(stream.randrange(1, 6)):
            at = stream.randrange(len(body))
            body[at : at + stream.randrange(3)] = stream.randbytes(stream.randrange(3))
        try:
            data, fault = redactor.redact_data(parse_json(decode(bytes(body)))), None
        except ValueError as error:
            data, fault = None, str(error)
        check(classify(Response(200, "OK", data, fault), BODY))


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_any_mutation_of_what_servers_tell_about_themselves_can_be_read(kind: str, start: int) -> None:
    stream = random.Random(f"{kind} {start}")
    models = {"data": [{"id": "made", "max_model_len": 4096}, {"id": "other"}]}
    for _ in range(200):
        assert read_methods(mutate(describe(kind), stream), "/completions") <= {"logprob_token_ids", "score"}
        length = read_context(mutate(models, stream), "made")
        assert length is None or length > 0
        with suppress(LookupError, TypeError, ValueError):
            assert all(isinstance(token, int) for token in read_token_ids(mutate({"tokens": [1, 2, 3]}, stream)))


def test_an_answer_is_read_whole() -> None:
    done = classify(Response(200, "OK", answer(BODY)), BODY)
    assert isinstance(done, Completion)
    assert (done.text, done.prompt_tokens, done.generated_tokens) == ("Verdict: 1", 50, 1)
    assert dict(done.logprobs) == pytest.approx({"1": math.log(0.72), "2": math.log(0.18), "The": math.log(0.05)})
    scored = classify(Response(200, "OK", SCORES), BODY, read_scores)
    assert isinstance(scored, Completion)
    assert scored.by_id == {1: math.log(0.25), 2: math.log(0.5)}
