"""The task `text`: rows of any data set as prompts and comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rlaif_framework import Comparison, Context, DataError, Prompt, Turn
from rlaif_framework.data import (
    FORMS,
    RESPONSE_FIELDS,
    PairRow,
    Placed,
    Row,
    RowFault,
    TaskData,
    check_dialogue,
    hash_texts,
    is_messages,
    is_transcript,
    join_transcript,
    make_comparison,
    read_dialogue,
    read_id,
    split_transcript,
    truncate_dialogue,
    truncate_passage,
    with_dialogue,
)
from rlaif_plugins.tasks.data_task import DataTask, TaskSplits
from rlaif_plugins.tasks.row_templates import ROW, PromptTemplates, RowTemplate, Values, plain_values, select_columns
from rlaif_plugins.tasks.text import ComparisonsConfig, TextConfig, plain_choice
from rlaif_plugins.tasks.text.preferences import read_preference

PROMPTS = Path(__file__).with_name("annotator_prompts.yaml")


class TextTask(DataTask):
    """A task to respond to a prompt that is made from the columns of a row."""

    def __init__(self, config: TextConfig, context: Context) -> None:
        super().__init__(config, PROMPTS, context)
        self.config = config
        self.column = config.messages if isinstance(config.messages, str) else None
        """The column of a dialogue."""
        self.reference = _compile("reference", config.reference)
        self.system = _compile("system", config.system)
        # Compiled now, so that a mistake is found before anything is computed.
        self.templates = _compile_prompt(config)

    def read_data(self) -> TaskSplits:
        """Read the prompts and the comparisons."""
        config, pairs = self.config, self.config.comparisons
        if config.data is None and pairs is None:
            raise DataError("task.data is missing: set it to a file or folder with prompts, or set task.comparisons")
        reader = TaskData(config.fields, config.skip_invalid)
        prompts = None if config.data is None else reader.read(config.data, self._read_prompt)
        comparisons = [] if pairs is None else self._read_comparisons(reader, pairs)
        reader.check("set task.skip_invalid: true to skip them")
        notes = []
        if prompts is not None:
            total, prompts = len(prompts), _drop_repeated(prompts)
            if len(prompts) < total:
                notes.append(f"{total - len(prompts)} rows repeat the prompt and the reference of another one")
            comparisons = _share_prompts(comparisons, prompts)
        splits = self.divide(reader, prompts, comparisons)
        return replace(splits, notes=[*splits.notes, *notes, *self._note_dialogues(splits)])

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Cut off the end of the longest column until the prompt fits; dialogues lose their oldest turns."""
        if self.column is not None:
            system = prompt.turns[0].content if prompt.turns and prompt.turns[0].role == "system" else None
            return truncate_dialogue(prompt, fits, system)
        if not prompt.passage:
            raise DataError(
                f"prompt '{prompt.id}' is too long, and has no column unchanged that could be truncated; raise "
                "policy.max_prompt_tokens"
            )
        return truncate_passage(prompt, fits)

    def clean(self, response: str) -> str:
        """Strip white space; in a dialogue, drop everything after the assistant's turn."""
        # Policies trained on transcripts often continue with the user's next turn.
        return (response if self.column is None else re.split(r"\n\n(?:Human|Assistant):", response)[0]).strip()

    def format_prompt(self, text: str) -> Prompt:
        """Return the prompt for a text in the only column that the templates use, or for the turns of a dialogue."""
        if self.column is not None:
            return self._make_dialogue(split_transcript(text), {}, None, None)
        parts = [*self.templates.parts, *([self.system] if self.system else [])]
        names = sorted({name for part in parts for name in part.names})
        if len(names) != 1 or names == [ROW]:
            raise DataError(f"a text alone makes no prompt, whose templates use {', '.join(names)}")
        values = {names[0]: text}
        return self.templates.render(values, system=self._system(values))

    def _read_prompt(self, row: Row) -> Iterator[tuple[str, tuple[Row, Prompt]]]:
        values, identity = row.values, read_id(row.values)
        plain = plain_values(values)
        reference = self._read_reference(plain, required=True)
        if self.column is None:
            prompt = self.templates.render(self._check_text(plain), identity, reference, self._system(plain))
        else:
            turns = read_dialogue(values.get(self.column), self.column)
            if turns[-1].role == "assistant":
                reference, turns = reference or turns[-1].content or None, turns[:-1]
            prompt = self._make_dialogue(turns, plain, identity, reference)
        prompt = replace(prompt, columns=select_columns(values, self.config.columns))
        yield prompt.source, (row, prompt)

    def _read_comparisons(self, reader: TaskData, config: ComparisonsConfig) -> list[Placed[Comparison]]:
        same = config.data is None
        place = config.data or self.config.data
        assert place is not None  # see `TextConfig`
        found = reader.read_pairs(
            place,
            self._compare,
            fields={**self.config.fields, **config.fields} if same else config.fields,
            option="task.comparisons.fields",
            prepare=self._prepare,
            again=same,
        )
        if not found and not reader.faults.count:
            raise DataError(
                f"task.comparisons: no row of {place} has two responses; expected {FORMS}; if the columns "
                "have other names, map them in task.comparisons.fields, such as {response_a: output1}"
            )
        return found

    def _prepare(self, values: Values) -> Values:
        """Return the columns of a row of comparisons with responses as texts, and with a prompt, as the forms need."""
        values = {name: _to_text(value) if name in RESPONSE_FIELDS else value for name, value in values.items()}
        if self.column is not None:
            return {**values, "prompt": values[self.column]} if self.column in values else values
        if any("prompt" in part.names for part in self.templates.parts):
            return values
        return {**values, "prompt": self.templates.render(plain_values(values)).text}

    def _compare(self, pair: PairRow, row: Row) -> Comparison:
        made, config = make_comparison(pair, row.values), self.config.comparisons
        assert config is not None
        plain = plain_values({**row.values, "prompt": pair.prompt or made.prompt.text})
        reference = self._read_reference(plain, required=False)
        if self.column is None:
            prompt = self.templates.render(plain, None, reference, self._system(plain))
        else:
            prompt = self._make_dialogue(split_transcript(made.prompt.text), plain, None, reference)
        preference = made.preference
        if config.preference is not None:
            if preference is not None:
                raise RowFault("the row states its preference twice, by task.comparisons.preference and by its form")
            preference = read_preference(config, row.values)
        identity = made.id if read_id(row.values) else f"{prompt.id}/{hash_texts(*pair.responses)}"
        source = None if preference is None else config.gold_source
        if self.config.data is None:  # otherwise the prompt of the data has the columns
            prompt = replace(prompt, columns=select_columns(row.values, self.config.columns))
        return replace(
            made, id=identity, prompt=prompt, preference=preference, preference_source=source, raw_responses=None
        )

    def _make_dialogue(self, turns: list[Turn], plain: Values, identity: str | None, reference: str | None) -> Prompt:
        check_dialogue(turns)
        prompt = with_dialogue(Prompt("", "", "", reference), join_transcript(turns), self._system(plain))
        return replace(prompt, id=identity or hash_texts(prompt.text))

    def _system(self, plain: Values) -> str | None:
        return self.system.render(plain).strip() if self.system else None

    def _read_reference(self, plain: Values, required: bool) -> str | None:
        """Return the reference of a row; None if it has none, or if a row of comparisons lacks its columns."""
        if self.reference is None:
            stated = plain.get("reference")
            return stated.strip() or None if isinstance(stated, str) else None
        if not required and not self.reference.names <= {ROW, *plain}:
            return None
        reference = self.reference.render(plain).strip()
        if not reference and required:
            raise RowFault("the reference is empty; see task.reference")
        return reference or None

    def _check_text(self, plain: Values) -> Values:
        """Check that a column of messages is not put into a prompt as text."""
        for part in self.templates.parts:
            for name in part.names & plain.keys():
                if is_messages(plain[name]):
                    raise RowFault(
                        f"'{name}' is a list of messages; set task.messages: {name}", kind=f"{name} messages"
                    )
        return plain

    def _note_dialogues(self, splits: TaskSplits) -> list[str]:
        if self.column is not None:
            return []
        count = sum(is_transcript(prompt.text) for found in splits.prompts.values() for prompt in found)
        advice = "set task.messages to the column, so that chat models get their turns"
        return [f"{count} prompts are dialogues; {advice}"] if count else []


def _to_text(response: object) -> object:
    """Return a response that is a number or a truth value as text, as in arithmetic; others are returned unchanged."""
    if isinstance(response, bool):
        return str(response)
    return plain_choice(response) if isinstance(response, int | float) and response == response else response


def _compile(name: str, template: str | None) -> RowTemplate | None:
    return None if template is None else RowTemplate(f"task.{name}", template)


def _compile_prompt(config: TextConfig) -> PromptTemplates:
    """Compile the templates of the prompt.

    Raises:
        DataError: A template is invalid, or the prompt uses no column.
    """
    messages = config.messages if isinstance(config.messages, list) else []
    # Without a template of its own, the text is made from the messages.
    text = None if messages and "prompt" not in config.model_fields_set else _compile("prompt", config.prompt)
    turns = [(m.role, RowTemplate(f"task.messages.{i}.content", m.content)) for i, m in enumerate(messages)]
    if turns and turns[-1][0] != "user":
        raise DataError("task.messages: the last message must be the user's, which is what the response answers")
    templates = PromptTemplates(text, turns, _compile("source", config.source), config.truncate)
    for name, parts in (("prompt", [text] if text else []), ("messages", [template for _, template in turns])):
        if parts and not any(part.names for part in parts):
            raise DataError(f"task.{name}: it uses no column, such as {{{{ question }}}}, so all prompts are the same")
    return templates


def _drop_repeated(prompts: Sequence[Placed[tuple[Row, Prompt]]]) -> list[Placed[tuple[Row, Prompt]]]:
    """Keep the first of rows with the same prompt and reference in one split."""
    found: dict[tuple[object, ...], Placed[tuple[Row, Prompt]]] = {}
    for placed in prompts:
        _, prompt = placed.item
        found.setdefault((placed.split, prompt.text, prompt.turns, prompt.reference), placed)
    return list(found.values())


def _share_prompts(
    comparisons: Sequence[Placed[Comparison]], prompts: Sequence[Placed[tuple[Row, Prompt]]]
) -> list[Placed[Comparison]]:
    """Give comparisons the prompts of the data with the same text, for their ids and references."""
    known: dict[str, Prompt] = {}
    for placed in prompts:
        _, prompt = placed.item
        known.setdefault(prompt.text, prompt)

    def share(comparison: Comparison) -> Comparison:
        own = comparison.prompt
        shared = known.get(own.text, own)
        return replace(comparison, prompt=replace(shared, reference=own.reference or shared.reference))

    return [replace(placed, item=share(placed.item)) for placed in comparisons]
