"""Answer requests with a local model, in batches by length, with logits for the last position only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

import torch

from rlaif_framework import Answer, Choose, Context, Generate, ModelError, Question, Request
from rlaif_framework.data import escape_control_tokens
from rlaif_framework.models import (
    QuestionTemplate,
    arrange_sequences,
    compute_dtype,
    compute_prefix,
    count_common,
    encode_text,
    find_model,
    forward_groups,
    load_model,
    load_tokenizer,
    position_limit,
    sample_responses,
    split_by_tokens,
    use_fp32_head,
)
from rlaif_framework.prompting import option_paths, option_probabilities
from rlaif_plugins.backends.transformers import TransformersConfig

EMPTY_THOUGHT = "empty_thought"
"""`Answer.read_from` of probabilities right after a thought that is left empty."""


class TransformersBackend:
    """Answers requests with a causal language model of transformers."""

    def __init__(self, config: TransformersConfig, context: Context) -> None:
        source = find_model(config.model, config.revision, config.trust_remote_code)
        self.name = config.model
        self.tokenizer = load_tokenizer(source, date=config.date)
        self.model = load_model(source, "causal", compute_dtype(config.dtype, context.device), context.device)
        self.prefix: list[int] = []
        """The common prefix of all questions of the last call, whose keys and values are kept for the next one."""
        self.prefix_cache: list[tuple[torch.Tensor, torch.Tensor]] = []
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        # A single character cannot be split by a space.
        self.control_tokens = [token for token in {*self.tokenizer.all_special_tokens, *added} if len(token) > 1]
        self.budget = context.batch_tokens
        self.source = source
        # Some architectures, such as ALiBi models, have no limit in their config.
        self.context: int | None = position_limit(self.model.config)
        if config.chat == "yes" and self.tokenizer.chat_template is None:
            raise ModelError(f"backend 'transformers': '{config.model}' has no chat template; set chat: no")
        chat = config.chat != "no" and self.tokenizer.chat_template is not None
        self.template = QuestionTemplate(self.tokenizer) if chat else None

    def identity(self) -> str:
        """Return the model's contents and precision, the versions of libraries, and how questions are rendered."""
        chat = "plain" if self.template is None else f"chat {self.template.template_hash}"
        libraries = f"transformers {version('transformers')} torch {version('torch')}"
        return f"{libraries} {self.source.identity} {self.model.dtype} {chat}"

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Return True if a question and an answer of this length fit into the model's context."""
        return self.context is None or len(self.encode(question)) + new_tokens <= self.context

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        """Answer requests. Those with the same settings share batches."""
        answers: dict[int, Answer] = {}
        choices = [(i, r) for i, r in enumerate(requests) if isinstance(r, Choose)]
        answers |= self._choose(choices) if choices else {}
        # Seeds may differ within a batch, since each row has its own random stream.
        texts: dict[tuple[int, float, int], list[tuple[int, Generate]]] = {}
        for i, request in enumerate(requests):
            if isinstance(request, Generate):
                key = (request.max_new_tokens, request.temperature, request.top_k)
                texts.setdefault(key, []).append((i, request))
        for group in texts.values():
            answers |= self._generate(group)
        return answers.items()

    def render(self, question: Question) -> str:
        """Return the model's input as text. With a chat template, the prefill starts the assistant's turn.

        The thought of a model that reasons before it answers is left empty.
        """
        text, prefill = self.escape(question.text), self.escape(question.prefill)
        if self.template is None:
            return f"{text}\n\n{prefill}" if prefill else text
        return self.template.render(text) + prefill

    def escape(self, text: str) -> str:
        """Escape control tokens in a text: data that contains `<|im_end|>` must not end the question."""
        for token in self.control_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return escape_control_tokens(text)

    def encode(self, question: Question) -> list[int]:
        """Return the token ids of a rendered question. A chat template has its own start token."""
        text = self.render(question)
        if self.template is None:
            return encode_text(self.tokenizer, text)
        return self._split(text)

    def option_ids(self, question: Question, options: Sequence[str]) -> tuple[int, list[list[int]]]:
        """Return the tokens of each option when it follows the question.

        The ending is tokenised with each option, since the ids of a digit depend on the characters before it. An option
        may absorb the ending's last characters, as ` 1` absorbs a space.

        Returns:
            The number of the question's last tokens that are part of the options, and the tokens of each option.

        Raises:
            ModelError: Two options have the same tokens.
        """
        # The end suffices, since only its last characters can merge with an option.
        ending = self.render(question)[-40:]
        before = self._split(ending)
        after = [self._split(ending + option) for option in options]
        # The minimum, so that all options follow the same tokens.
        kept = min(count_common(before, ids) for ids in after)
        found = [ids[kept:] for ids in after]
        if len({tuple(ids) for ids in found}) < len(found):
            raise ModelError(
                f"the tokenizer of '{self.name}' has the same tokens for {', '.join(options)}; choose other options"
            )
        return len(before) - kept, found

    def _split(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _choose(self, requests: Sequence[tuple[int, Choose]]) -> dict[int, Answer]:
        """Compute the probabilities of options, from their first tokens if these differ, else from more tokens."""
        questions, options = [], []
        for _, request in requests:
            ids = self.encode(request.question)
            taken, found = self.option_ids(request.question, request.options)
            questions.append(ids[: len(ids) - taken])
            options.append(found)
        reads = _plan_reads(questions, options)
        read_from = EMPTY_THOUGHT if self.template is not None and self.template.has_empty_thought else ""
        wanted = {key: {ids[len(key[1])] for ids in options[key[0]] if len(ids) > len(key[1])} for key in reads}
        logprobs = self._read_next(reads, wanted)
        answers: dict[int, Answer] = {}
        for number, (index, _) in enumerate(requests):
            own = {path: logprobs[n, path] for n, path in reads if n == number}
            weights = option_probabilities(options[number], own)
            mass = sum(weights)
            probabilities = tuple(weight / mass for weight in weights) if mass > 0 else ()
            answers[index] = Answer(probabilities, mass, prompt_tokens=len(questions[number]), read_from=read_from)
        return answers

    @torch.no_grad()
    def _read_next(
        self,
        reads: Mapping[tuple[int, tuple[int, ...]], list[int]],
        wanted: Mapping[tuple[int, tuple[int, ...]], set[int]],
    ) -> dict[tuple[int, tuple[int, ...]], dict[int, float]]:
        """Return the log-probabilities of the wanted tokens after each text. Common prefixes are computed once."""
        keys = list(reads)
        branches = arrange_sequences(self.model, [reads[key] for key in keys], self.prefix)
        size = len(branches.prefix)
        if self.prefix[:size] != branches.prefix:
            self.prefix, self.prefix_cache = branches.prefix, compute_prefix(self.model, branches.prefix)
        # The kept prefix may be longer than the common one. Keys and values: (batch, heads, positions, width)
        prefix = [(keys_[:, :, :size], values[:, :, :size]) for keys_, values in self.prefix_cache] if size else []
        found = {}
        for batch in split_by_tokens([group.length for group in branches.groups], self.budget):
            groups = [branches.groups[i] for i in batch]
            with use_fp32_head(self.model):
                logits, _ = forward_groups(self.model, groups, prefix, self.tokenizer.pad_token_id)
            members = [places for i in batch for places in branches.members[i]]  # equal texts are one row
            for row, places in zip(logits, members, strict=True):
                logprobs = row.float().log_softmax(0)  # (vocabulary)
                for place in places:
                    key = keys[place]
                    ids = sorted(wanted[key])
                    found[key] = dict(zip(ids, logprobs[ids].tolist(), strict=True))
        return found

    def _generate(self, requests: Sequence[tuple[int, Generate]]) -> dict[int, Answer]:
        first = requests[0][1]
        encoded = [self.encode(request.question) for _, request in requests]
        samples = sample_responses(
            self.model,
            self.tokenizer,
            encoded,
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature,
            seed=[request.seed for _, request in requests],
            top_k=first.top_k,
            budget=self.budget,
        )
        return {
            index: Answer(text=sample.text, prompt_tokens=len(ids), generated_tokens=len(sample.ids))
            for (index, _), ids, sample in zip(requests, encoded, samples, strict=True)
        }


def _plan_reads(
    questions: Sequence[list[int]], options: Sequence[Sequence[list[int]]]
) -> dict[tuple[int, tuple[int, ...]], list[int]]:
    """Return, for each question and prefix of an option, the tokens after which probabilities are needed."""
    reads = {}
    for number, found in enumerate(options):
        for path in option_paths(found):
            reads[number, path] = questions[number] + list(path)
    return reads
