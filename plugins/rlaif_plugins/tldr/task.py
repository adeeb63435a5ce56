"""Posts and comparisons as prompts, in the words of the TL;DR task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from rlaif_framework import (
    Comparison,
    Context,
    DataError,
    Prompt,
    Row,
    Split,
    Splits,
    Words,
    copy_rate,
    cut_text,
    read_splits,
)
from rlaif_plugins.tldr import TldrConfig

MINI = Path(__file__).with_name("tldr_mini.jsonl")
POST_IN_PROMPT = re.compile(r"POST: (.*?)\n+TL;DR:\s*$", re.DOTALL)


class TldrTask:
    """Summarise a text in one or two sentences."""

    def __init__(self, config: TldrConfig, context: Context) -> None:
        self.config = config
        self._words = Words.load(Path(__file__).with_name("words.yaml"), config.words)
        self.shares = (config.validation_share, config.test_share)
        try:
            self.template = Environment(undefined=StrictUndefined).from_string(config.template)
            rendered = self.template.render(subreddit="s", title="t", post="\0")
        except (TemplateError, TypeError, ValueError) as error:
            raise DataError(f"task.template: {error}; it may use subreddit, title and post") from error
        if "\0" not in rendered:
            raise DataError("task.template: it does not use {{ post }}, so that every prompt would be the same")

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Posts of a split with their reference summaries."""
        return self._prompts[split]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Comparisons of a split: `mini`'s own, or those of `comparisons`; empty if there are none."""
        return self._comparisons[split]

    @cached_property
    def _prompts(self) -> dict[Split, list[Prompt]]:
        rows = read_splits(_find(self.config.data), self.shares)
        return {split: [self._prompt(row) for row in found] for split, found in rows.items()}

    @cached_property
    def _comparisons(self) -> dict[Split, list[Comparison]]:
        place = self.config.comparisons or ("mini" if self.config.data == "mini" else None)
        rows: Splits = (
            {"train": [], "validation": [], "test": []} if place is None else read_splits(_find(place), self.shares)
        )
        return {split: [c for row in found for c in self._compare(row)] for split, found in rows.items()}

    def shorten(self, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt:
        """Cut the post at its last lines until the prompt fits (Huang et al. 2024)."""
        before, _, after = prompt.text.rpartition(prompt.source)
        source = cut_text(prompt.source, lambda text: fits(before + text + after))
        if not source.strip():
            raise DataError(f"prompt '{prompt.id}': not one word of the post fits; raise policy.max_prompt_tokens")
        return replace(prompt, text=before + source + after, source=source)

    def words(self) -> Words:
        """The texts for annotators: of the paper's structure, in our own words."""
        return self._words

    def clean(self, response: str) -> str:
        """Strip superfluous symbols at the end, a reward hack the paper met (RLAIF G)."""
        return re.sub(r"(?:\s*\.){2,}\s*$", ".", response.strip()).strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Words, copy rate, and ROUGE F1 against the reference where there is one."""
        metrics = {"words": float(len(response.split())), "copy_rate": copy_rate(prompt.source, response)}
        if prompt.reference:
            metrics |= {name: s.fmeasure for name, s in self._scorer.score(prompt.reference, response).items()}
        return metrics

    def _prompt(self, row: Row, needs_summary: bool = True) -> Prompt:
        names = self.config.fields
        given = {
            role: row.values.get(names.get(role, role)) for role in ("id", "subreddit", "title", "post", "summary")
        }
        whole = row.values.get("prompt")
        if given["post"] is None and isinstance(whole, str):
            summary = row.values.get("completion", row.values.get("label")) if needs_summary else None
            return self._whole_prompt(row, whole, given["id"], summary)
        post = _text(given["post"])
        if not post:
            wanted = names.get("post", "post")
            raise DataError(
                f"{row.where}: no '{wanted}'; it has {', '.join(row.values)}. Name its fields in task.fields"
            )
        summary = _first_text(given["summary"])
        if needs_summary and not summary:
            raise DataError(f"{row.where}: '{names.get('summary', 'summary')}' is missing or empty")
        title, subreddit = _text(given["title"]), _text(given["subreddit"])
        text = self.template.render(subreddit=subreddit, title=title, post=post)
        if post not in text:
            raise DataError(f"{row.where}: task.template changes the post; a prompt must hold it as it is, to be cut")
        return Prompt(str(given["id"] or _hash(text)), text, post, summary or None)

    def _whole_prompt(self, row: Row, whole: str, identity: object, summary: object) -> Prompt:
        """A prompt that is already rendered (trl-lib/tldr and its like), or a bare post."""
        found = POST_IN_PROMPT.search(whole)
        if found:
            text, post = whole.rstrip(), found[1].strip()
        else:
            post = whole.strip()
            text = self.template.render(subreddit="", title="", post=post)
        if not post:
            raise DataError(f"{row.where}: 'prompt' is empty")
        return Prompt(str(identity or _hash(text)), text, post, _first_text(summary) or None)

    def _compare(self, row: Row) -> Iterator[Comparison]:
        if "flawed" in row.values:
            yield from self._compare_mini(row)
            return
        parts = _read_comparison(row)
        if parts is None:
            return
        prompt_row, responses, preference, confidence = parts
        first, second = _check_responses(row, responses)
        prompt = self._prompt(prompt_row, needs_summary=False)
        source = None if preference is None else "human"
        identity = f"{prompt.id}/{_hash(first + second)}"
        yield Comparison(identity, prompt, (first, second), preference, source, confidence)  # type: ignore[arg-type]

    def _compare_mini(self, row: Row) -> Iterator[Comparison]:
        """The good candidate against each flawed one; the reference is neither, so that judges may compare with it."""
        prompt = self._prompt(row)
        try:
            pairs = [
                (f["flaw"], _check_responses(row, (row.values["candidate"], f["text"]))) for f in row.values["flawed"]
            ]
        except (KeyError, TypeError) as error:
            raise DataError(f"{row.where}: 'candidate' and 'flawed' do not hold texts and flaws: {error!r}") from error
        for flaw, (good, bad) in pairs:
            identity = f"{prompt.id}/{flaw}"
            swap = int(_hash(identity), 16) % 2 == 1
            pair = (bad, good) if swap else (good, bad)
            yield Comparison(identity, prompt, pair, 0.0 if swap else 1.0, "construction", slice=flaw)


def _find(place: str | dict[Split, str]) -> str | dict[Split, str]:
    return str(MINI) if place == "mini" else place


def _check_responses(row: Row, responses: tuple[Any, Any]) -> tuple[str, str]:
    for text in responses:
        if not isinstance(text, str):
            raise DataError(f"{row.where}: a response is not text but {type(text).__name__}")
    first, second = (text.strip() for text in responses)
    if not first or not second:
        raise DataError(f"{row.where}: a response is empty")
    if first == second:
        raise DataError(f"{row.where}: the two responses are identical")
    return first, second


def _read_comparison(row: Row) -> tuple[Row, tuple[str, str], float | None, float | None] | None:
    """Prompt, responses, preference and confidence of a row in any known form; None for rows of another data set."""
    values = row.values
    try:
        if "summaries" in values and "info" in values:
            return _read_openai(row)
        if "responses" in values:
            first, second = values["responses"]
            human, confidence = values.get("human"), values.get("confidence")
            for name, value in (("human", human), ("confidence", confidence)):
                if value is not None and not 0 <= value <= 1:
                    raise ValueError(f"'{name}' is {value}, not between 0 and 1")
            return row, (first, second), None if human is None else float(human), confidence
        if "response_a" in values:
            if values.get("label") not in ("a", "b", "tie"):
                raise ValueError(f"'label' is {values.get('label')!r}, not 'a', 'b' or 'tie'")
            preference = {"a": 1.0, "b": 0.0, "tie": 0.5}[values["label"]]
            return row, (values["response_a"], values["response_b"]), preference, None
        if "chosen" in values:
            chosen, rejected = _first_text(values["chosen"]), _first_text(values["rejected"])
            swap = int(_hash(chosen + rejected), 16) % 2 == 1
            return row, (rejected, chosen) if swap else (chosen, rejected), 0.0 if swap else 1.0, None
    except KeyError as error:
        raise DataError(f"{row.where}: not a comparison: {error} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{row.where}: not a comparison: {error}") from error
    raise DataError(
        f"{row.where}: not a comparison; expected info + summaries + choice, prompt + responses, prompt + chosen + "
        f"rejected, or prompt + response_a + response_b + label. It has {', '.join(values)}"
    )


def _read_openai(row: Row) -> tuple[Row, tuple[str, str], float | None, float | None] | None:
    """OpenAI's comparisons; rows about news articles (CNN/DM) are not of this task."""
    info, (first, second), choice = row.values["info"], row.values["summaries"], row.values["choice"]
    if not info.get("post"):
        return None
    if choice not in (0, 1):
        raise ValueError(f"'choice' is {choice!r}, not 0 or 1")
    rated = (row.values.get("extra") or {}).get("confidence")
    if rated is not None and not 1 <= rated <= 9:
        raise ValueError(f"'extra.confidence' is {rated}, not between 1 and 9")
    # 1 is surely the first, 9 surely the second, 5 undecided: how far from the middle.
    confidence = None if rated is None else abs(rated - 5) / 4
    return Row(info, row.where), (first["text"], second["text"]), 1.0 if choice == 0 else 0.0, confidence


def _text(value: Any) -> str:
    """A field's text: a string, or a list of strings joined by spaces."""
    if isinstance(value, list):
        return " ".join(str(part).strip() for part in value).strip()
    return "" if value is None else str(value).strip()


def _first_text(value: Any) -> str:
    """A field's text, or the first of several; of a chat, the last message."""
    if isinstance(value, list):
        if value and isinstance(value[-1], dict):
            return str(value[-1].get("content", "")).strip()
        return str(value[0]).strip() if value else ""
    return _text(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
