"""Embed texts with mean pooling, and compare them by cosine similarity (Reimers and Gurevych 2019)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.special import expit
from torch import Tensor
from transformers.utils.hub import cached_file

from rlaif_framework import Comparison, Context, DataError, Evidence, ModelError, Preference, Prompt
from rlaif_framework.data import copy_rate
from rlaif_framework.models import ModelSource, find_model, load_model, load_tokenizer, position_limit, split_by_tokens
from rlaif_framework.prompting import truncate_source
from rlaif_plugins.labelers.similarity import SimilarityConfig

MODE = "pooling_mode_"

Content = tuple[str, str, str | None]
"""Text, source and reference of a prompt."""


class SimilarityLabeler:
    """Scores each response independently, so it has no position bias."""

    def __init__(self, config: SimilarityConfig, context: Context) -> None:
        self.config = config
        self.task = context.task
        source = find_model(config.model, trust_remote_code=config.trust_remote_code)
        self.tokenizer = load_tokenizer(source, needs_end=False)
        self.model = load_model(source, "plain", torch.float32, context.device)
        _check_pooling(source)
        limits = position_limit(self.model.config), self.tokenizer.model_max_length
        self.limit: int = min(filter(None, limits))  # for models without a limit, the number of the tokenizer is huge
        self.budget = context.batch_tokens

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by similarity.

        A source that is longer than the model's context is truncated by its task; a response or a reference is
        truncated at its end. The evidence records both.

        Raises:
            DataError: A prompt has no reference, and `against` is `reference`.
        """
        anchors = self._anchors([c.prompt for c in comparisons])
        scores = self._score(anchors, [(c.prompt, text) for c in comparisons for text in c.responses])
        for comparison, a, b in zip(comparisons, scores[::2], scores[1::2], strict=True):
            first = float(expit((a - b) / self.config.scale))
            evidence = Evidence(
                "similarity",
                scores=(a, b),
                source_truncated=anchors[_content(comparison.prompt)][1],
                responses_truncated=sum(not self.fits(text) for text in comparison.responses),
            )
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the cosine similarities of responses, in [-1, 1], minus the penalty on copying.

        Raises:
            DataError: A prompt has no reference, and `against` is `reference`.
        """
        return self._score(self._anchors(prompts), list(zip(prompts, responses, strict=True)))

    def _anchors(self, prompts: Sequence[Prompt]) -> dict[Content, tuple[str, bool]]:
        """Return, for each distinct prompt, the text that responses are compared with, and True if it is truncated."""
        distinct: dict[Content, Prompt] = {}
        for prompt in prompts:
            distinct.setdefault(_content(prompt), prompt)
        return {content: self._anchor(prompt) for content, prompt in distinct.items()}

    def _anchor(self, prompt: Prompt) -> tuple[str, bool]:
        if self.config.against == "source":
            short = truncate_source(self.task, prompt, self.fits)
            # None if even the first word is too long: `embed` then truncates the source within it.
            return (prompt.source, True) if short is None else (short.source, short is not prompt)
        if not prompt.reference:
            raise DataError(f"labeler 'similarity': prompt '{prompt.id}' has no reference")
        return prompt.reference, not self.fits(prompt.reference)

    def fits(self, text: str) -> bool:
        """Return True if a text fits into the model's context."""
        return len(self._encode(text)) <= self.limit

    def _encode(self, text: str, **settings: Any) -> list[int]:
        """Return the token ids of a text, with the model's start and end token; those in the text are text."""
        ids: list[int] = self.tokenizer(text, split_special_tokens=True, verbose=False, **settings)["input_ids"]
        return ids

    def _score(
        self, anchors: Mapping[Content, tuple[str, bool]], responses: Sequence[tuple[Prompt, str]]
    ) -> list[float]:
        """Score responses; each distinct text is embedded once."""
        vectors = self.embed({*(anchor for anchor, _ in anchors.values()), *(text for _, text in responses)})
        similarities = [float(vectors[anchors[_content(prompt)][0]] @ vectors[text]) for prompt, text in responses]
        if self.config.copy_penalty == 0:
            return similarities
        copied = [copy_rate(prompt.source, text) for prompt, text in responses]
        return [s - self.config.copy_penalty * rate for s, rate in zip(similarities, copied, strict=True)]

    @torch.no_grad()
    def embed(self, texts: set[str]) -> dict[str, Tensor]:
        """Return unit-length embeddings of texts, (width,) each; long texts are truncated at their end."""
        ordered = sorted(texts)  # sets have no fixed order, and rounding depends on the batches
        encoded = [self._encode(text, truncation=True, max_length=self.limit) for text in ordered]
        vectors: dict[str, Tensor] = {}
        for batch in split_by_tokens([len(ids) for ids in encoded], self.budget):
            padded = self.tokenizer.pad({"input_ids": [encoded[i] for i in batch]}, return_tensors="pt")
            padded = padded.to(self.model.device)
            hidden = self.model(**padded).last_hidden_state  # (texts, length, width)
            mask = padded["attention_mask"][:, :, None]  # (texts, length, 1)
            means = (hidden * mask).sum(1) / mask.sum(1)  # (texts, width)
            for i, vector in zip(batch, torch.nn.functional.normalize(means, dim=1).cpu(), strict=True):
                vectors[ordered[i]] = vector
        return vectors


def _check_pooling(source: ModelSource) -> None:
    """Check that a model of sentence-transformers pools the states of its tokens by their mean, if it says how.

    Raises:
        ModelError: It pools them in another way.
    """
    if source.is_gguf:
        return
    optional = {f"_raise_exceptions_for_{name}": False for name in ("missing_entries", "connection_errors")}
    revision = source.commit or source.revision or "main"
    file = cached_file(source.location, "1_Pooling/config.json", revision=revision, **optional)
    try:
        settings = dict(json.loads(Path(file).read_text(encoding="utf-8"))) if file is not None else {}
    except (ValueError, TypeError) as error:
        raise ModelError(f"'{source.name}': {file} is not a mapping in JSON: {error}") from error
    modes = [name.removeprefix(MODE) for name, used in settings.items() if name.startswith(MODE) and used is True]
    if modes and modes != ["mean_tokens"]:
        raise ModelError(
            f"labeler 'similarity': '{source.name}' pools tokens by {' and '.join(modes)}, and the labeler by their "
            "mean, which would give other similarities; use a model with mean pooling"
        )


def _content(prompt: Prompt) -> Content:
    """Return what is compared of a prompt, which may have several ids."""
    return prompt.text, prompt.source, prompt.reference
