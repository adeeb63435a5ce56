"""The TL;DR task: posts as prompts, summaries as responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, PreferenceSource, Prompt
from rlaif_framework.data import (
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
    truncate_passage,
)
from rlaif_plugins.tasks.data_task import DataTask, TaskSplits
from rlaif_plugins.tasks.row_templates import PromptTemplates, RowTemplate
from rlaif_plugins.tasks.tldr import TldrConfig
from rlaif_plugins.tasks.tldr.rows import Post, Values, find_post, read_first, read_flaws, read_text

MINI = Path(__file__).with_name("tldr_mini.jsonl")


class TldrTask(DataTask):
    """A task to summarise a post in one or two sentences."""

    def __init__(self, config: TldrConfig, context: Context) -> None:
        super().__init__(config, Path(__file__).with_name("annotator_prompts.yaml"), context)
        self.config = config
        # Checked now, so that a template without the post is found before anything is computed.
        self.templates = PromptTemplates(
            _compile("task.template", config.template),
            [("user", _compile("task.instruction", config.instruction))],
            RowTemplate("task.source", "{{ post }}"),
            truncate="post",
            noun="post",
            strip=False,
        )

    def read_data(self) -> TaskSplits:
        """Read posts with their reference summaries, and comparisons from `mini` or from `comparisons`."""
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
        return self.divide(reader, posts, pairs)

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Truncate the post at its last lines until the prompt fits (Huang et al. 2024)."""
        return truncate_passage(prompt, fits, "post")

    def clean(self, response: str) -> str:
        """Strip superfluous symbols at the end, a reward hack that the paper reports (RLAIF G)."""
        return re.sub(r"(?:\s*\.){2,}\s*$", ".", response.strip()).strip()

    def format_prompt(self, text: str) -> Prompt:
        """Return the prompt for a post, or for a text in the form of OpenAI's TL;DR data."""
        return self._whole_prompt(text, None, "")

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
        return self.templates.render(post._asdict(), identity, summary or None, self.config.system)

    def _compare(self, pair: PairRow, row: Row) -> Comparison:
        prompt = self._prompt(pair.post or row.values, pair.prompt, needs_summary=False)
        if prompt.reference is None:  # in the rows of `rlaif label`, it has this name
            prompt = replace(prompt, reference=read_text(row.values, "reference") or None)
        source: PreferenceSource | None = None if pair.preference is None else "human"
        identity = f"{prompt.id}/{hash_texts(''.join(pair.responses))}"
        slice_ = read_text(row.values, "slice") or None
        return Comparison(identity, prompt, pair.responses, pair.preference, source, pair.confidence, slice_)

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


def _compile(name: str, template: str) -> RowTemplate:
    """Compile the template of a prompt.

    Raises:
        TemplateFault: It is invalid.
        DataError: It does not use the post.
    """
    try:
        rendered = Template(name, template).render(subreddit="s", title="t", post="\0")
    except TemplateFault as fault:
        raise TemplateFault(f"{fault}; it may use subreddit, title and post") from fault
    if "\0" not in rendered:
        raise DataError(f"{name}: it does not use {{{{ post }}}}, so all prompts would be the same")
    return RowTemplate(name, template)
