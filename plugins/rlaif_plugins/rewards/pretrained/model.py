"""Score responses with a sequence-classification model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from rlaif_framework import Context, DataError, LabelledComparison, ModelError, Prompt, Stage, Turn
from rlaif_framework.models import (
    embed_padding,
    encode_continuation,
    encode_text,
    encode_turns,
    find_model,
    load_model,
    load_tokenizer,
    position_limit,
    separate_padding,
)
from rlaif_plugins.rewards.pretrained import PretrainedRewardConfig


class PretrainedReward:
    """Uses an existing model as the reward, without training."""

    def __init__(self, config: PretrainedRewardConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Write the name and identity of the model."""
        source = find_model(self.config.model, self.config.revision, self.config.trust_remote_code)
        (stage.folder / "reward.txt").write_text(f"{source.name}, {source.identity}\n", encoding="utf-8")

    def load(self, folder: Path) -> PretrainedScorer:
        """Load the model."""
        return PretrainedScorer(self.config, self.context)


class PretrainedScorer:
    """Scores responses with the model."""

    def __init__(self, config: PretrainedRewardConfig, context: Context) -> None:
        """Load the model.

        Raises:
            ModelError: It is not a sequence-classification model with one output, or lacks a token that the format
            needs.
        """
        self.config, self.context = config, context
        source = find_model(config.model, config.revision, config.trust_remote_code)
        self.tokenizer = load_tokenizer(source, needs_end=False)
        self.model = load_model(source, "score", context.dtype, context.device).requires_grad_(False)
        facts = self.model.config
        if not any("ForSequenceClassification" in name for name in facts.architectures or []):
            raise ModelError(f"reward 'pretrained': '{source.name}' is not a reward model: it has no scalar head")
        if facts.num_labels != 1:
            raise ModelError(
                f"reward 'pretrained': '{source.name}' has {facts.num_labels} outputs, a reward model has one"
            )
        # The model scores the last token that is not padding: the padding token must not occur in texts.
        if facts.pad_token_id is None:
            facts.pad_token_id = separate_padding(self.tokenizer)
            embed_padding(self.model, facts.pad_token_id)
        # bf16 has 8 significant bits: similar responses would get equal scores.
        if self.model.base_model is not self.model:
            for head in self.model.children():
                if head is not self.model.base_model:
                    head.float().register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
        self.format = self._choose_format()
        # For models without a limit, the number of the tokenizer is huge.
        limits = position_limit(facts), self.tokenizer.model_max_length
        self.most: int | None = config.max_tokens or min(filter(None, limits))

    def _choose_format(self) -> str:
        tokenizer, wanted = self.tokenizer, self.config.format
        pairs = tokenizer.cls_token is not None and tokenizer.sep_token is not None
        if wanted == "auto":
            return "chat" if tokenizer.chat_template is not None else "pair" if pairs else "text"
        if wanted == "chat" and tokenizer.chat_template is None:
            raise ModelError(f"reward 'pretrained': '{self.config.model}' has no chat template; set format: text")
        if wanted == "text" and tokenizer.eos_token_id is None:
            raise ModelError(f"reward 'pretrained': '{self.config.model}' has no EOS token; set format: pair")
        return wanted

    def encode(self, prompt: Prompt, response: str) -> dict[str, list[int]]:
        """Return the token ids of a prompt and a response, with the other inputs that the tokenizer returns."""
        tokenizer = self.tokenizer
        if self.format == "text":
            return {"input_ids": encode_text(tokenizer, prompt.text) + encode_continuation(tokenizer, response)}
        if self.format == "pair":
            # A separator in a text must not end it.
            return dict(tokenizer(prompt.text, response, return_attention_mask=False, split_special_tokens=True))
        turns = [*prompt.conversation, Turn("assistant", response)]
        return {"input_ids": encode_turns(tokenizer, turns, continued=False)}

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses, in batches of similar length.

        Raises:
            DataError: A response does not fit into the model's context.
        """
        rows = [self._fit(prompt, text) for prompt, text in zip(prompts, responses, strict=True)]
        scores = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        for start in range(0, len(order), self.config.batch_size):
            chosen = order[start : start + self.config.batch_size]
            for place, value in zip(chosen, self._score_batch([rows[i] for i in chosen]), strict=True):
                scores[place] = value
        return scores

    def _fit(self, prompt: Prompt, response: str) -> dict[str, list[int]]:
        """Encode a prompt and a response, and truncate the source of the prompt if the input is too long."""
        row, most = self.encode(prompt, response), self.most
        if most is None or len(row["input_ids"]) <= most:
            return row
        try:
            short = self.context.task.truncate(
                prompt, lambda shorter: len(self.encode(shorter, response)["input_ids"]) <= most
            )
        except DataError as error:
            raise DataError(
                f"reward 'pretrained', prompt '{prompt.id}': the response does not fit into {most} tokens"
            ) from error
        return self.encode(short, response)

    def _score_batch(self, rows: Sequence[dict[str, list[int]]]) -> list[float]:
        padding = {"input_ids": int(self.model.config.pad_token_id)}
        inputs = {
            name: nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=padding.get(name, 0)
            )
            for name in rows[0]
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        inputs["attention_mask"] = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).long()
        logits = self.model(**{name: tensor.to(self.context.device) for name, tensor in inputs.items()}).logits
        scores: list[float] = logits.float().squeeze(-1).tolist()
        return scores
