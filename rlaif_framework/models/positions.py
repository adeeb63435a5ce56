"""Compare the lengths of sequences with the positions of a model."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from rlaif_framework.errors import ModelError

BATCH_DEPENDENT = ("dynamic", "longrope")
"""Kinds of rotary positions whose frequencies depend on the longest sequence of a batch, beyond the original length."""

OFFSET = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Architectures whose first position has the index after that of the padding token."""


def position_limit(config: PreTrainedConfig) -> int | None:
    """Return the maximum length of a sequence; None for models without a limit, such as recurrent ones."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if positions is not None and text.model_type in OFFSET:
        positions -= text.pad_token_id + 1
    limits: list[Any] = [positions, getattr(text, "max_seq_len", None)]  # MPT has only the second one
    ropes = getattr(text, "rope_parameters", None) or {}
    for rope in (
        ropes,
        *(value for value in ropes.values() if isinstance(value, dict)),
    ):  # or one for each kind of layer
        if rope.get("rope_type") in BATCH_DEPENDENT:
            limits.append(rope.get("original_max_position_embeddings"))
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known) if known else None


def check_length(config: PreTrainedConfig, length: int, what: str, advice: str) -> None:
    """Check that a sequence is not longer than a model's positions.

    Args:
        config: The model's config.
        length: Tokens of the sequence.
        what: What is so long, as the subject of a sentence.
        advice: What to do, as an imperative.

    Raises:
        ModelError: It is longer.
    """
    limit = position_limit(config)
    if limit is not None and length > limit:
        raise ModelError(
            f"{what} has {length:,} tokens, and the model ({config.model_type}) has {limit:,} positions; {advice}"
        )
