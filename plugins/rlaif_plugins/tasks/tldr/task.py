"""Posts and comparisons as prompts, in the words of the TL;DR task."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from jinja2 import Environment, StrictUndefined, TemplateError

from rlaif_framework import Comparison, Context, DataError, PreferenceSource, Prompt, Split
from rlaif_framework.data import AnnotatorPrompts, Row, copy_rate, read_splits, truncate_text
from rlaif_plugins.tasks.tldr import Place, TldrConfig
from rlaif_plugins.tasks.tldr.rows import (
    Values,
    find_post,
    find_subject,
    hash_text,
    read_comparison,
    read_first,
    read_flaws,
    read_identity,
    read_text,
)

MINI = Path(__file__).with_name("tldr_mini.jsonl")
T = TypeVar("T")


class TldrTask:
    """Summarise a text in one or two sentences."""

    def __init__(self, config: TldrConfig, context: Context) -> None:
        self.config = config
        self._words = AnnotatorPrompts.load(
            Path(__file__).with_name("annotator_prompts.yaml"), config.annotator_prompts
        )
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
        return _tell_apart(self._read(self.config.data, self._posts))

    @cached_property
    def _comparisons(self) -> dict[Split, list[Comparison]]:
        place = self.config.comparisons or ("mini" if self.config.data == "mini" else None)
        if place is None:
            return {"train": [], "validation": [], "test": []}
        return {split: [pair for _, pair in pairs] for split, pairs in self._read(place, self._compare).items()}

    def truncate(self, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt:
        """Cut the post at its last lines until the prompt fits (Huang et al. 2024)."""
        before, _, after = prompt.text.rpartition(prompt.source)
        source = truncate_text(prompt.source, lambda text: fits(before + text + after))
        if not source.strip():
            raise DataError(f"prompt '{prompt.id}': not one word of the post fits; raise policy.max_prompt_tokens")
        return replace(prompt, text=before + source + after, source=source)

    def annotator_prompts(self) -> AnnotatorPrompts:
        """The texts for annotators: of the paper's structure, in our own words."""
        return self._words

    def clean(self, response: str) -> str:
        """Strip superfluous symbols at the end, a reward hack the paper met (RLAIF G)."""
        return re.sub(r"(?:\s*\.){2,}\s*$", ".", response.strip()).strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """AnnotatorPrompts, copy rate, and ROUGE F1 against the reference where there is one."""
        metrics = {"words": float(len(response.split())), "copy_rate": copy_rate(prompt.source, response)}
        if prompt.reference:
            metrics |= {name: s.fmeasure for name, s in self._scorer.score(prompt.reference, response).items()}
        return metrics

    def _posts(self, row: Row) -> Iterator[Prompt]:
        yield self._prompt(row.values)

    def _prompt(self, values: Values, needs_summary: bool = True) -> Prompt:
        names = self.config.fields
        identity = read_identity(values, names.get("id", "id"))
        wanted = names.get("post", "post")
        whole = values.get("prompt")
        if values.get(wanted) is None and whole is not None:
            if not isinstance(whole, str):
                raise DataError(f"'prompt' is {short(whole)}, not a text")
            summary = read_first(values, "completion" if "completion" in values else "label") if needs_summary else ""
            return self._whole_prompt(whole, identity, summary)
        post = read_text(values, wanted)
        if not post:
            raise DataError(f"no '{wanted}'; it has {', '.join(values)}. Name its fields in task.fields")
        summary = read_first(values, names.get("summary", "summary"))
        if needs_summary and not summary:
            raise DataError(f"'{names.get('summary', 'summary')}' is missing or empty")
        title = read_text(values, names.get("title", "title"))
        subreddit = read_text(values, names.get("subreddit", "subreddit"))
        text = self.template.render(subreddit=subreddit, title=title, post=post)
        if post not in text:
            raise DataError("task.template changes the post; a prompt must hold it as it is, to be cut")
        return Prompt(identity or hash_text(text), text, post, summary or None)

    def _whole_prompt(self, whole: str, identity: str | None, summary: str) -> Prompt:
        """A prompt that is already rendered (trl-lib/tldr and its like), or a bare post."""
        post = find_post(whole)
        text = whole.rstrip()
        if post is None:
            post = whole.strip()
            text = self.template.render(subreddit="", title="", post=post)
        if not post:
            raise DataError("'prompt' is empty")
        return Prompt(identity or hash_text(text), text, post, summary or None)

    def _compare(self, row: Row) -> Iterator[Comparison]:
        if "flawed" in row.values:
            yield from self._compare_mini(row.values)
            return
        found = read_comparison(row.values)
        if found is None:
            return
        prompt = self._prompt(found.prompt, needs_summary=False)
        source: PreferenceSource | None = None if found.preference is None else "human"
        identity = f"{prompt.id}/{hash_text(''.join(found.responses))}"
        yield Comparison(identity, prompt, found.responses, found.preference, source, found.confidence)

    def _compare_mini(self, values: Values) -> Iterator[Comparison]:
        """The good candidate against each flawed one; the reference is neither, so that judges may compare with it."""
        prompt = self._prompt(values)
        for flaw, (good, bad) in read_flaws(values):
            identity = f"{prompt.id}/{flaw}"
            swap = int(hash_text(identity), 16) % 2 == 1
            pair = (bad, good) if swap else (good, bad)
            yield Comparison(identity, prompt, pair, 0.0 if swap else 1.0, "synthetic", slice=flaw)

    def _read(self, place: Place, parse: Callable[[Row], Iterator[T]]) -> dict[Split, list[tuple[Row, T]]]:
        """All rows of a data set, each with what `parse` makes of it; of several bad ones the first is named."""
        subject = partial(find_subject, post=self.config.fields.get("post", "post"))
        rows = read_splits(str(MINI) if place == "mini" else place, self.shares, subject)
        found: dict[Split, list[tuple[Row, T]]] = {split: [] for split in rows}
        bad: list[tuple[int, str]] = []
        for split, own in rows.items():
            for row in own:
                try:
                    found[split] += [(row, item) for item in parse(row)]
                except DataError as error:
                    bad.append((row.number, f"{row.where}: {error}"))
        if bad:
            raise DataError(min(bad)[1])
        return found


def _tell_apart(found: Mapping[Split, Sequence[tuple[Row, Prompt]]]) -> dict[Split, list[Prompt]]:
    """Prompts of different ids: what is known of one would be taken for another's of the same id.

    Raises:
        DataError: Two posts of one file, or of one split, were given the same id.
    """
    seen: dict[tuple[str, str], Row] = {}
    prompts: dict[Split, list[Prompt]] = {split: [] for split in found}
    everything = [(row, split, prompt) for split, pairs in found.items() for row, prompt in pairs]
    for row, split, prompt in sorted(everything, key=lambda item: item[0].number):
        file = row.where.rpartition(", ")[0]
        first = seen.get((file, prompt.id)) or seen.get((split, prompt.id))
        if first is not None and prompt.id != hash_text(prompt.text):
            raise DataError(f"{row.where}: the id '{prompt.id}' is that of {first.where}; each post needs its own")
        if first is not None:  # the same post once more, without an id
            prompt = replace(prompt, id=f"{prompt.id}-{len(seen)}")
        seen |= {(file, prompt.id): row, (split, prompt.id): row}
        prompts[split].append(prompt)
    return prompts
