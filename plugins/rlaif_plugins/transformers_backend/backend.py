"""Answer requests with a local model, in batches by length, the head at the last position only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from rlaif_framework import (
    Answer,
    Choose,
    Context,
    Generate,
    ModelError,
    Question,
    Request,
    compute_dtype,
    encode_prompt,
    find_model,
    load_model,
    load_tokenizer,
    sample_responses,
    split_by_tokens,
)
from rlaif_plugins.transformers_backend import TransformersConfig


class TransformersBackend:
    """A causal language model of transformers."""

    def __init__(self, config: TransformersConfig, context: Context) -> None:
        source = find_model(config.model, config.revision)
        self.name = config.model
        self.tokenizer = load_tokenizer(source)
        self.model = load_model(source, "causal", compute_dtype(config.dtype, context.device), context.device)
        self.budget = context.policy.batch_tokens
        self.chat = config.chat == "yes" or (config.chat == "auto" and self.tokenizer.chat_template is not None)
        self.source = source
        if config.chat == "yes" and self.tokenizer.chat_template is None:
            raise ModelError(f"backend 'transformers': '{config.model}' has no chat template; set chat: no")

    def identity(self) -> str:
        """The model's contents, its precision, and how questions are put."""
        return f"transformers {self.source.identity} {self.model.dtype} {'chat' if self.chat else 'plain'}"

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        """Answer requests; equal settings share batches."""
        answers: dict[int, Answer] = {}
        choices = [(i, r) for i, r in enumerate(requests) if isinstance(r, Choose)]
        answers |= self._choose(choices)
        texts: dict[tuple[int, float, int, int], list[tuple[int, Generate]]] = {}
        for i, request in enumerate(requests):
            if isinstance(request, Generate):
                key = (request.max_new_tokens, request.temperature, request.top_k, request.seed)
                texts.setdefault(key, []).append((i, request))
        for group in texts.values():
            answers |= self._generate(group)
        return answers.items()

    def render(self, question: Question) -> str:
        """The text the model reads; with a chat template the prefill starts the assistant's turn."""
        if not self.chat:
            return f"{question.text}\n\n{question.prefill}" if question.prefill else question.text
        messages = [{"role": "user", "content": question.text}]
        return (
            str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            + question.prefill
        )

    def encode(self, question: Question) -> list[int]:
        """Token ids of a rendered question; a chat template brings its own start token."""
        text = self.render(question)
        if not self.chat:
            return encode_prompt(self.tokenizer, text)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def label_ids(self, question: Question, options: Sequence[str]) -> list[int]:
        """The token each option begins with when it follows the question.

        Found by tokenising the ending with the option, since the same digit has other ids after other characters.

        Raises:
            ModelError: Two options begin with the same token, so that the next token cannot tell them apart.
        """
        ending = (question.prefill or question.text)[-40:]
        before = self.tokenizer(ending, add_special_tokens=False)["input_ids"]
        found = []
        for option in options:
            after = self.tokenizer(ending + option, add_special_tokens=False)["input_ids"]
            same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
            if same < len(before):  # the option merged into the ending's last token
                raise ModelError(f"'{self.name}' has no token of its own for '{option}' after '{ending[-12:]}'")
            found.append(after[same])
        if len(set(found)) < len(found):
            raise ModelError(f"'{self.name}' begins {', '.join(options)} with the same token; choose other options")
        return found

    @torch.no_grad()
    def _choose(self, requests: Sequence[tuple[int, Choose]]) -> dict[int, Answer]:
        encoded = [self.encode(r.question) for _, r in requests]
        answers: dict[int, Answer] = {}
        for batch in split_by_tokens([len(ids) for ids in encoded], self.budget):
            width = max(len(encoded[i]) for i in batch)
            inputs = torch.full((len(batch), width), self.tokenizer.pad_token_id)
            mask = torch.zeros_like(inputs)
            for row, i in enumerate(batch):
                inputs[row, width - len(encoded[i]) :] = torch.tensor(encoded[i])
                mask[row, width - len(encoded[i]) :] = 1
            logits = self.model(
                input_ids=inputs.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(self.model.device),
                logits_to_keep=1,
                use_cache=False,
            ).logits[:, -1]  # (requests, vocabulary)
            logprobs = logits.float().log_softmax(-1).cpu()
            for row, i in enumerate(batch):
                index, request = requests[i]
                labels = logprobs[row, self.label_ids(request.question, request.options)]
                # Softmax over the label tokens only: the rest of the vocabulary carries no preference.
                chosen = tuple(labels.double().softmax(0).tolist())
                answers[index] = Answer(chosen, float(labels.exp().sum()), prompt_tokens=len(encoded[i]))
        return answers

    def _generate(self, requests: Sequence[tuple[int, Generate]]) -> dict[int, Answer]:
        first = requests[0][1]
        samples = sample_responses(
            self.model,
            self.tokenizer,
            [self.encode(r.question) for _, r in requests],
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature,
            seed=first.seed,
            top_k=first.top_k,
            budget=self.budget,
        )
        answers = {}
        for (index, request), sample in zip(requests, samples, strict=True):
            used = len(self.encode(request.question))
            answers[index] = Answer(text=sample.text, prompt_tokens=used, generated_tokens=len(sample.ids))
        return answers
