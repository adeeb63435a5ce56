"""The API key is removed from texts in every form in which a server may return it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from rlaif_plugins.backends.openai.redaction import Redactor

KEYS = ("sk-abcdefghijklmnopqrstuvwxyz0123456789", "a/b+c=d&e<f>g\"h'i\\j%k{l}m~n", "eyJhbGciOi/" * 40)
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON with escaped slashes": lambda key: json.dumps(key)[1:-1].replace("/", r"\/"),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key).replace("/", r"\/")),
    "Unicode escapes": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "some Unicode escapes": lambda key: "".join(f"\\u{ord(c):04X}" if i % 3 else c for i, c in enumerate(key)),
    "Unicode escapes of eight digits": lambda key: "".join(f"\\U{ord(c):08x}" for c in key),
    "Unicode escapes in braces": lambda key: "".join(f"\\u{{{ord(c):x}}}" for c in key),
    "Unicode escapes in a URL": lambda key: "".join(f"%u{ord(c):04X}" for c in key),
    "octal escapes": lambda key: "".join(f"\\{ord(c):03o}" for c in key),
    "quoted-printable": lambda key: "".join(f"={ord(c):02X}" for c in key),
    "hexadecimal escapes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "URL": lambda key: quote(key, safe=""),
    "URL, all characters": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "HTML, numbers": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(c):X};" for c in key),
    "HTML, long numbers": lambda key: "".join(f"&#{ord(c):09d};" for c in key),
    "HTML, names": lambda key: key.replace("&", "&amp;").replace("/", "&sol;").replace("+", "&plus;"),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64 of a longer text": lambda key: base64.b64encode(f"key: {key}, model: x".encode()).decode(),
    "base64 in a URL": lambda key: quote(base64.urlsafe_b64encode(f"k{key}".encode()).decode(), safe=""),
    "hexadecimal": lambda key: key.encode().hex(),
    "hexadecimal, upper case": lambda key: key.encode().hex().upper(),
    "repr": lambda key: repr(key)[1:-1],
}


def longest_part(key: str, text: str) -> int:
    """Return the length of the longest part of the key in a text."""
    return max(
        (n for n in range(1, len(key) + 1) for i in range(len(key) - n + 1) if key[i : i + n] in text), default=0
    )


@pytest.mark.parametrize("key", KEYS, ids=["letters", "signs", "long"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_form_of_the_key_remains(key: str, form: Callable[[str], str]) -> None:
    shown = form(key)
    text = Redactor(key).redact(f"Incorrect key: {shown}. Check the key.")
    assert text.startswith("Incorrect key: ")
    assert text.endswith(". Check the key.")
    assert "***" in text
    assert not any(shown[i : i + 16] in text for i in range(max(1, len(shown) - 15)))
    assert len(text) < 70


@pytest.mark.parametrize("form", ["plain", "URL, all characters", "HTML, numbers", "Unicode escapes", "base64"])
def test_a_part_that_a_cut_of_the_server_left_is_removed(form: str) -> None:
    key = KEYS[0]
    shown, redactor = FORMS[form](key), Redactor(key)
    size = len(shown) // len(key)
    for length in range(12 * size + 12, len(shown) + 1):
        assert redactor.redact(f"key {shown[:length]}")[:7] == "key ***"
        assert redactor.redact(f"{shown[-length:]} is the key")[-14:] == "*** is the key"[-14:]
    for length in range(len(key) + 1):
        assert longest_part(key, redactor.redact(key[:length])) < 12


def test_what_is_not_the_key_stays() -> None:
    key = KEYS[0]
    redactor = Redactor(key)
    for text in ("", "key", "100 % of &amp; it \\u0041 \\ &#65; &nosuch; %zz", f"a%20b {key[:7]}", "sk-other-key-0123"):
        assert redactor.redact(text) == text
    assert redactor.redact(f"one%20{key}%20two &amp; {key}") == "one%20***%20two &amp; ***"
    assert Redactor("").redact(key) == key


def test_a_short_key_is_removed_from_messages_only_and_as_a_whole() -> None:
    redactor = Redactor("EMPTY")
    assert redactor.redact("key EMPTY is wrong, not EMPT") == "key *** is wrong, not EMPT"
    assert redactor.redact_data({"text": "EMPTY"}) == {"text": "EMPTY"}
    short = Redactor("pass/word+1")
    for form in FORMS.values():
        text = short.redact(f"key {form('pass/word+1')} is wrong")
        assert "***" in text
        assert "word" not in text
    assert short.redact("pass/word") == "pass/word"


def test_all_texts_of_a_response_are_cleaned() -> None:
    key = KEYS[0]
    data = {"a": [f"is {key}", 1, None, {key: {"b": key.encode().hex()}}], "c": 0.5}
    assert Redactor(key).redact_data(data) == {"a": ["is ***", 1, None, {"***": {"b": "***"}}], "c": 0.5}
