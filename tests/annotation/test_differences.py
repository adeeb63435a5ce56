"""The words that differ are found, and no character of a text is lost."""

from __future__ import annotations

import pytest

from rlaif_framework.annotation.differences import MAX_WORDS, compare_words


def test_words_that_differ_are_marked() -> None:
    first, second = compare_words("The cat sat on the mat.", "The dog sat on the red mat.")
    assert [text.strip() for text, changed in first if changed] == ["cat"]
    assert [text.strip() for text, changed in second if changed] == ["dog", "red"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("one  two\n\nthree ", " one two three"),
        ("</script><b>bold</b>", "</script><i>bold</i>"),
        ("A first. A second! " * MAX_WORDS, "A first. Another! " * MAX_WORDS),
        ("the cat " * MAX_WORDS, "a cat the " * MAX_WORDS),
        ("same", "same"),
    ],
    ids=["spaces", "markup", "sentences", "repetitive", "equal"],
)
def test_the_parts_are_the_text(first: str, second: str) -> None:
    parts = compare_words(first, second)
    assert ["".join(text for text, _ in part) for part in parts] == [first, second]
    assert any(changed for text, changed in parts[0]) == (first.split() != second.split())
