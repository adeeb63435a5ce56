"""The TL;DR task: posts as prompts, summaries as responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rlaif_framework import Comparison, Context, DataError, PreferenceSource, Prompt, ResponseMetrics, Split, Turn
from rlaif_framework.data import (
    AnnotatorPrompts,
    Divider,
    PairRow,
    Placed,
    Row,
    RowFault,
    TaskData,
    Template,
    TemplateFault,
    hash_texts,
    read_id,
    read_prompt,
    truncate_text,
)
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.rows import Post, Values, find_post, read_first, read_flaws, read_text

MINI = Path(__file__).with_name("tldr_mini.jsonl")


class TldrData(NamedTuple):
    """The data of the task, by split."""

    prompts: dict[Split, list[Prompt]]
    comparisons: dict[Split, list[Comparison]]
    notes: list[str]


class TldrTask:
    """A task to summarise a post in one or two sentences."""

    def __init__(self, config: TldrConfig, context: Context) -> None:
        self.config = config
        self._context = context
        self._annotator_prompts = AnnotatorPrompts.load(
            Path(__file__).with_name("annotator_prompts.yaml"), config.annotator_prompts
        )
        self.fractions = (config.validation_fraction, config.test_fraction)
        # Checked now, so that a template without the post is found before anything is computed.
        self.template = _compile("task.template", config.template)
        self.instruction = _compile("task.instruction", config.instruction)

    @cached_property
    def _metrics(self) -> ResponseMetrics:
        return self._context.build_metrics(self.config.metrics)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the posts of a split with their reference summaries."""
        return self._data.prompts[split]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return the comparisons of a split, from `mini` or from `comparisons`; empty if there are none."""
        return self._data.comparisons[split]

    def data_notes(self) -> Sequence[str]:
        """Describe rows of the data that are left out."""
        return self._data.notes

    @cached_property
    def _data(self) -> TldrData:
        config = self.config
        reader = TaskData(config.fields)
        posts = reader.read(str(MINI) if config.data == "mini" else config.data, self._read_post)
        place = config.comparisons or ("mini" if config.data == "mini" else None)
        pairs: list[Placed[Comparison]] = []
        if place == "mini":
            pairs = reader.read(str(MINI), self._compare_mini)
        elif place is not None:
            pairs = reader.read_pairs(place, self._compare, {"flawed": self._compare_mini})
        reader.check()
        divider = Divider(self.fractions, [*posts, *pairs])
        # Two posts with one id are reported even if one of them is dropped.
        identified = _make_ids_unique(posts)
        return TldrData(
            divider.divide(identified, "prompts"),
            divider.divide(pairs, "comparisons"),
            [*reader.notes, *divider.notes],
        )

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
        """Return the numbers of the metrics that apply to the response."""
        return self._metrics.measure([prompt], [response])[0]

    def _read_post(self, row: Row) -> Iterator[tuple[str, tuple[Row, Prompt]]]:
        values = row.values
        whole = read_prompt(values) if values.get("post") is None and values.get("prompt") is not None else None
        prompt = self._prompt(values, whole, needs_summary=True)
        yield prompt.source, (row, prompt)

    def _prompt(self, values: Values, whole: str | None, needs_summary: bool) -> Prompt:
        identity = read_id(values)
        if values.get("post") is None and whole is not None:
            summary = read_first(values, "completion" if "completion" in values else "label") if needs_summary else ""
            return self._whole_prompt(whole, identity, summary)
        post = read_text(values, "post")
        if not post:
            raise RowFault(f"no 'post'; found {', '.join(values)}; name the data's fields in task.fields")
        summary = read_first(values, "summary")
        if needs_summary and not summary:
            raise RowFault("'summary' is missing or empty")
        return self._render(Post(read_text(values, "subreddit"), read_text(values, "title"), post), identity, summary)

    def _whole_prompt(self, whole: str, identity: str | None, summary: str) -> Prompt:
        """Return the prompt for a text that is already rendered, as in trl-lib/tldr, or for a bare post."""
        found = find_post(whole)
        if found is None and not whole.strip():
            raise RowFault("'prompt' is empty")
        if found is None:
            return self._render(Post("", "", whole.strip()), identity, summary)
        prompt = self._render(found, identity, summary)
        # The text stays as it is in the data.
        return replace(prompt, id=identity or hash_texts(whole.rstrip()), text=whole.rstrip())

    def _render(self, post: Post, identity: str | None, summary: str) -> Prompt:
        """Return the prompt for a post: its text, and its turns for a policy with a chat template."""
        text, message = self.template.render(**post._asdict()), self.instruction.render(**post._asdict())
        for name, rendered in (("template", text), ("instruction", message)):
            if post.post not in rendered:
                raise RowFault(
                    f"task.{name} changes the post; prompts must contain it unchanged, so that it can be truncated"
                )
        system = [Turn("system", self.config.system)] if self.config.system else []
        turns = (*system, Turn("user", message))
        return Prompt(identity or hash_texts(text), text, post.post, summary or None, turns)

    def _compare(self, pair: PairRow, row: Row) -> Comparison:
        prompt = self._prompt(pair.post or row.values, pair.prompt, needs_summary=False)
        source: PreferenceSource | None = None if pair.preference is None else "human"
        identity = f"{prompt.id}/{hash_texts(''.join(pair.responses))}"
        return Comparison(identity, prompt, pair.responses, pair.preference, source, pair.confidence)

    def _compare_mini(self, row: Row) -> Iterator[tuple[str, Comparison]]:
        """Compare the good candidate with each flawed one, if the row has them.

        The reference is neither, so that judges may use it.
        """
        prompt = self._prompt(row.values, None, needs_summary=True)
        for flaw, (good, bad) in read_flaws(row.values):
            identity = f"{prompt.id}/{flaw}"
            # By a hash, so that about half of the good candidates come second, in the same places in every run.
            swap = int(hash_texts(identity), 16) % 2 == 1
            pair = (bad, good) if swap else (good, bad)
            comparison = Comparison(identity, prompt, pair, 0.0 if swap else 1.0, "synthetic", slice=flaw)
            yield prompt.source, comparison


def _compile(name: str, template: str) -> Template:
    """Compile the template of a prompt.

    Raises:
        TemplateFault: It is invalid.
        DataError: It does not use the post.
    """
    try:
        compiled = Template(name, template.removesuffix("\n"))
        rendered = compiled.render(subreddit="s", title="t", post="\0")
    except TemplateFault as fault:
        raise TemplateFault(f"{fault}; it may use subreddit, title and post") from fault
    if "\0" not in rendered:
        raise DataError(f"{name}: it does not use {{{{ post }}}}, so all prompts would be the same")
    return compiled


def _make_ids_unique(posts: Sequence[Placed[tuple[Row, Prompt]]]) -> list[Placed[Prompt]]:
    """Make the ids of prompts unique: results are looked up by id.

    Raises:
        DataError: Two different posts in one file, or in one split, have the same id.
    """
    seen: dict[tuple[str, str], Row] = {}
    found: list[Placed[Prompt]] = []
    for placed in posts:
        row, prompt = placed.item
        scopes = (row.file, placed.split or "")
        first = next((seen[scope, prompt.id] for scope in scopes if (scope, prompt.id) in seen), None)
        if first is not None and prompt.id != hash_texts(prompt.text):
            raise DataError(f"{row.where}: the id '{prompt.id}' is already used in {first.where}; ids must be unique")
        if first is not None:  # the same post again, without an id of its own
            prompt = replace(prompt, id=f"{prompt.id}-{len(seen)}")
        seen |= {(scope, prompt.id): row for scope in scopes}
        found.append(Placed(prompt, placed.text, placed.split))
    return found
