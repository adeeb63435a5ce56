"""The TL;DR task: posts as prompts, summaries as responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from rlaif_framework import Comparison, Context, DataError, PreferenceSource, Prompt, Split, Turn
from rlaif_framework.data import AnnotatorPrompts, Row, copy_rate, hash_texts, read_id, read_splits, truncate_text
from rlaif_plugins.tasks.splits import Place
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.rows import (
    Post,
    Values,
    find_post,
    find_subject,
    read_comparison,
    read_first,
    read_flaws,
    read_text,
)

MINI = Path(__file__).with_name("tldr_mini.jsonl")
T = TypeVar("T")


class TldrTask:
    """A task to summarise a post in one or two sentences."""

    def __init__(self, config: TldrConfig, context: Context) -> None:
        self.config = config
        self._annotator_prompts = AnnotatorPrompts.load(
            Path(__file__).with_name("annotator_prompts.yaml"), config.annotator_prompts
        )
        self.fractions = (config.validation_fraction, config.test_fraction)
        # Checked now, so that a template without the post is found before anything is computed.
        self.template = _compile("task.template", config.template)
        self.instruction = _compile("task.instruction", config.instruction)

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer  # only the evaluation needs it, and it imports nltk

        return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the posts of a split with their reference summaries."""
        return self._prompts[split]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return the comparisons of a split, from `mini` or from `comparisons`; empty if there are none."""
        return self._comparisons[split]

    @cached_property
    def _prompts(self) -> dict[Split, list[Prompt]]:
        return _make_ids_unique(self._read(self.config.data, self._posts))

    @cached_property
    def _comparisons(self) -> dict[Split, list[Comparison]]:
        place = self.config.comparisons or ("mini" if self.config.data == "mini" else None)
        if place is None:
            return {"train": [], "validation": [], "test": []}
        parse = self._compare_mini if place == "mini" else self._compare
        return {split: [pair for _, pair in pairs] for split, pairs in self._read(place, parse).items()}

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Truncate the post at its last lines until the prompt fits (Huang et al. 2024)."""
        source = truncate_text(prompt.source, lambda text: fits(prompt.replace_source(text)))
        if not source.strip():
            raise DataError(f"prompt '{prompt.id}': not even one word of the post fits; raise policy.max_prompt_tokens")
        return prompt.replace_source(source)

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompts for annotators. They have the structure of the paper's prompts, but not their wording."""
        return self._annotator_prompts

    def clean(self, response: str) -> str:
        """Strip superfluous symbols at the end, a reward hack that the paper reports (RLAIF G)."""
        return re.sub(r"(?:\s*\.){2,}\s*$", ".", response.strip()).strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the number of words, the copy rate, and ROUGE F1 if there is a reference."""
        metrics = {"words": float(len(response.split())), "copy_rate": copy_rate(prompt.source, response)}
        if prompt.reference:
            metrics |= {name: s.fmeasure for name, s in self._scorer.score(prompt.reference, response).items()}
        return metrics

    def _posts(self, row: Row) -> Iterator[Prompt]:
        yield self._prompt(row.values)

    def _prompt(self, values: Values, needs_summary: bool = True) -> Prompt:
        names = self.config.fields
        identity = read_id(values, names.get("id", "id"))
        wanted = names.get("post", "post")
        whole = values.get("prompt")
        if values.get(wanted) is None and whole is not None:
            if not isinstance(whole, str):
                raise DataError(f"'prompt' is {short(whole)}, not a string")
            summary = read_first(values, "completion" if "completion" in values else "label") if needs_summary else ""
            return self._whole_prompt(whole, identity, summary)
        post = read_text(values, wanted)
        if not post:
            raise DataError(f"no '{wanted}'; found {', '.join(values)}; name the data's fields in task.fields")
        summary = read_first(values, names.get("summary", "summary"))
        if needs_summary and not summary:
            raise DataError(f"'{names.get('summary', 'summary')}' is missing or empty")
        title = read_text(values, names.get("title", "title"))
        subreddit = read_text(values, names.get("subreddit", "subreddit"))
        return self._render(Post(subreddit, title, post), identity, summary)

    def _whole_prompt(self, whole: str, identity: str | None, summary: str) -> Prompt:
        """Return the prompt for a text that is already rendered, as in trl-lib/tldr, or for a bare post."""
        found = find_post(whole)
        if found is None and not whole.strip():
            raise DataError("'prompt' is empty")
        if found is None:
            return self._render(Post("", "", whole.strip()), identity, summary)
        prompt = self._render(found, identity, summary)
        # The text stays as it is in the data.
        return replace(prompt, id=identity or hash_texts(whole.rstrip()), text=whole.rstrip())

    def _render(self, post: Post, identity: str | None, summary: str) -> Prompt:
        """Return the prompt for a post: its text, and its turns for a policy with a chat template."""
        text, message = self.template.render(post._asdict()), self.instruction.render(post._asdict())
        for name, rendered in (("template", text), ("instruction", message)):
            if post.post not in rendered:
                raise DataError(
                    f"task.{name} changes the post; prompts must contain it unchanged, so that it can be truncated"
                )
        system = [Turn("system", self.config.system)] if self.config.system else []
        turns = (*system, Turn("user", message))
        return Prompt(identity or hash_texts(text), text, post.post, summary or None, turns)

    def _compare(self, row: Row) -> Iterator[Comparison]:
        if "flawed" in row.values:
            yield from self._compare_mini(row)
            return
        found = read_comparison(row.values)
        if found is None:
            return
        prompt = self._prompt(found.prompt, needs_summary=False)
        source: PreferenceSource | None = None if found.preference is None else "human"
        identity = f"{prompt.id}/{hash_texts(''.join(found.responses))}"
        yield Comparison(identity, prompt, found.responses, found.preference, source, found.confidence)

    def _compare_mini(self, row: Row) -> Iterator[Comparison]:
        """Compare the good candidate with each flawed one, if the row has them.

        The reference is neither, so that judges may use it.
        """
        prompt = self._prompt(row.values)
        for flaw, (good, bad) in read_flaws(row.values):
            identity = f"{prompt.id}/{flaw}"
            # By a hash, so that about half of the good candidates come second, in the same places in every run.
            swap = int(hash_texts(identity), 16) % 2 == 1
            pair = (bad, good) if swap else (good, bad)
            yield Comparison(identity, prompt, pair, 0.0 if swap else 1.0, "synthetic", slice=flaw)

    def _read(self, place: Place, parse: Callable[[Row], Iterator[T]]) -> dict[Split, list[tuple[Row, T]]]:
        """Parse all rows of a data set. If several are invalid, the error names the first."""
        subject = partial(find_subject, post=self.config.fields.get("post", "post"))
        rows = read_splits(str(MINI) if place == "mini" else place, self.fractions, subject)
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


def _compile(name: str, template: str) -> Template:
    """Compile the template of a prompt.

    Raises:
        DataError: It is invalid, or does not use the post.
    """
    try:
        compiled = Environment(undefined=StrictUndefined).from_string(template)
        rendered = compiled.render(subreddit="s", title="t", post="\0")
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(f"{name}: {error}; it may use subreddit, title and post") from error
    if "\0" not in rendered:
        raise DataError(f"{name}: it does not use {{{{ post }}}}, so all prompts would be the same")
    return compiled


def _make_ids_unique(found: Mapping[Split, Sequence[tuple[Row, Prompt]]]) -> dict[Split, list[Prompt]]:
    """Make the ids of prompts unique: results are looked up by id.

    Raises:
        DataError: Two different posts in one file, or in one split, have the same id.
    """
    seen: dict[tuple[str, str], Row] = {}
    prompts: dict[Split, list[Prompt]] = {split: [] for split in found}
    # In the order of the rows, so that the error names the later of two rows.
    everything = [(row, split, prompt) for split, pairs in found.items() for row, prompt in pairs]
    for row, split, prompt in sorted(everything, key=lambda item: item[0].number):
        file = row.where.rpartition(", ")[0]
        first = seen.get((file, prompt.id)) or seen.get((split, prompt.id))
        if first is not None and prompt.id != hash_texts(prompt.text):
            raise DataError(f"{row.where}: the id '{prompt.id}' is already used in {first.where}; ids must be unique")
        if first is not None:  # the same post again, without an id of its own
            prompt = replace(prompt, id=f"{prompt.id}-{len(seen)}")
        seen |= {(file, prompt.id): row, (split, prompt.id): row}
        prompts[split].append(prompt)
    return prompts
