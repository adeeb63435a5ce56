"""Copy rate and cutting."""

from __future__ import annotations

import pytest

from rlaif_framework.data import copy_rate, truncate_text

SOURCE = "My cat sat on the red mat all day, and nobody in the house could move her."


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (SOURCE, 1.0),
        ("my CAT sat, on the RED mat!", 1.0),  # neither case nor punctuation hides a copy
        ("the dog ran over a blue hill", 0.0),
        ("my cat sat on the blue mat", 1 / 3),  # 1 of 3 sequences of five words
        ("the mat red on sat", 0.0),  # the same words in another order
        ("red mat", 1.0),  # shorter than five words: one sequence
        ("red cat", 0.0),
        ("", 0.0),
        (" ...! ", 0.0),
    ],
)
def test_copy_rate_is_the_share_of_five_word_sequences_that_stand_in_the_source(response: str, expected: float) -> None:
    assert copy_rate(SOURCE, response) == pytest.approx(expected)


def test_copy_rate_counts_sequences_of_the_length_asked_for() -> None:
    assert copy_rate("a b c d", "a b x c d", length=2) == pytest.approx(2 / 4)
    assert copy_rate("a b", "a b c d e f g") == 0.0
    assert copy_rate("", "a b") == 0.0


POST = "First line here.\nSecond line.\n\nThird line is the longest of all."


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1000, POST),
        (len(POST), POST),
        (len(POST) - 1, "First line here.\nSecond line."),  # whole lines go, and no blank line is left at the end
        (29, "First line here.\nSecond line."),
        (28, "First line here."),
        (16, "First line here."),
        (15, "First line"),  # one line is left: words go
        (5, "First"),
        (4, ""),
    ],
)
def test_a_text_is_cut_at_its_last_line_then_at_its_last_word(limit: int, expected: str) -> None:
    assert truncate_text(POST, lambda text: len(text) <= limit) == expected


def test_the_cut_text_is_the_longest_that_fits() -> None:
    text = " ".join(["word"] * 500)
    asked = []

    def fits(candidate: str) -> bool:
        asked.append(candidate)
        return len(candidate) <= 1003

    cut = truncate_text(text, fits)
    assert cut == " ".join(["word"] * 200)
    assert len(asked) < 20, "tokenising a long text hundreds of times would make this the slowest stage"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("漢字の文章です" * 20, ("漢字の文章です" * 20)[:60]),
        ("see " + "漢字の文章です" * 20, ("see " + "漢字の文章です" * 20)[:60]),
        ("see " + "https://a.example/" * 20, "see"),
        ("https://a.example/" * 20, ""),
    ],
)
def test_only_a_text_of_a_script_without_spaces_is_cut_between_characters(text: str, expected: str) -> None:
    assert truncate_text(text, lambda cut: len(cut) <= 60) == expected
