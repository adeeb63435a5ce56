"""Log-probabilities and entropies of response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlaif_framework.models.adapters import leave_casts_to_autocast
from rlaif_framework.models.packing import Group, Packed, pack_groups, select_head_positions, split_by_tokens

CHUNK = 64
"""Number of rows of logits that are processed at once."""


def selective_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute log-probabilities of given tokens in fp32, without keeping a log-softmax for the backward pass.

    Args:
        logits: (tokens, vocabulary), any float precision.
        targets: (tokens,) token ids.
        temperature: Divisor of the logits; use the sampling temperature, to score the distribution sampled from.

    Returns:
        (tokens,) fp32 (fp64 for fp64 logits).
    """
    result: Tensor = _SelectiveLogprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return result


class _SelectiveLogprobs(torch.autograd.Function):
    """Log-probabilities computed in chunks, in place; keeps the logits and one number per row for the backward pass.

    `log_softmax` and `gather` allocate several fp32 tensors of the size of the logits. For 768 tokens of a 135M model,
    that took longer than the forward pass of the model.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        chosen, normalisers = [], []
        for rows, ids in zip(logits.split(CHUNK), targets.split(CHUNK), strict=True):
            scaled = _widen(rows).div_(temperature)  # (chunk, vocabulary)
            chosen.append(scaled.gather(1, ids[:, None]).squeeze(1))
            highest = scaled.amax(1, keepdim=True)  # (chunk, 1), subtracted so that no exponential overflows
            normalisers.append(scaled.sub_(highest).exp_().sum(1).log_().add_(highest.squeeze(1)))
        normaliser = torch.cat(normalisers)
        ctx.save_for_backward(logits, targets, normaliser)
        ctx.temperature = temperature
        return torch.cat(chosen) - normaliser

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normaliser = ctx.saved_tensors
        upstream = (grads[0] / ctx.temperature)[:, None]  # (tokens, 1)
        result = torch.empty_like(logits)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            # d logprob / d logits = (one-hot of the target - softmax) / temperature.
            grad = _widen(logits[part]).div_(ctx.temperature).sub_(normaliser[part, None]).exp_().mul_(-upstream[part])
            grad.scatter_add_(1, targets[part, None], upstream[part])
            result[part] = grad
        return result, None, None


def token_entropies(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute the entropy of the distribution at each position, in nats, a few rows at a time.

    Args:
        logits: (tokens, vocabulary), any float precision.
        temperature: Divisor of the logits.

    Returns:
        (tokens,) fp32.
    """

    def entropy(rows: Tensor) -> Tensor:
        logprobs = (rows.float() / temperature).log_softmax(1)  # (chunk, vocabulary)
        return -(logprobs.exp() * logprobs).sum(1)

    # Recomputed in the backward pass: otherwise autograd would keep fp32 tensors of the size of the logits.
    return torch.cat([checkpoint(entropy, rows, use_reentrant=False) for rows in logits.split(CHUNK)])


def _widen(rows: Tensor) -> Tensor:
    """Copy rows in at least fp32."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32), copy=True)


def response_logits(model: nn.Module, packed: Packed) -> Tensor:
    """Compute the logits that predict each response token of a packed batch, (response tokens, vocabulary).

    The head runs at response positions only, and each prompt is computed once for all its responses.
    """
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    head = inner.get_output_embeddings()  # type: ignore[operator]
    packed = packed.fit(inner)
    with select_head_positions(head, packed.rows, packed.columns), leave_casts_to_autocast(inner):
        # The wrapper itself is called: it synchronises gradients.
        logits: Tensor = model(**packed.model_inputs(inner), use_cache=False).logits
    return logits.squeeze(0)  # not [0], whose backward pass allocates and copies a tensor of this size


def response_logprobs(model: nn.Module, packed: Packed, temperature: float = 1.0) -> Tensor:
    """Compute log-probabilities of the response tokens of a packed batch, (response tokens,) in fp32."""
    return selective_logprobs(response_logits(model, packed), packed.targets, temperature)


@torch.no_grad()
def mean_logprobs(
    model: PreTrainedModel, groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase, budget: int
) -> list[list[float]]:
    """Compute the mean log-probability per token of each response of each group, without gradients.

    Args:
        model: A causal LM.
        groups: Token ids of prompts and their responses.
        tokenizer: Its tokenizer.
        budget: Maximum tokens in a batch.

    Returns:
        The means of each group's responses, in nats.
    """
    found: dict[int, list[float]] = {}
    for batch in split_by_tokens([group.length for group in groups], budget):
        packed = pack_groups([groups[i] for i in batch], tokenizer.pad_token_id, model.device)
        sums = packed.per_response(response_logprobs(model, packed))  # (responses,)
        lengths = packed.per_response(torch.ones_like(packed.targets, dtype=torch.float32))
        means = iter((sums / lengths).tolist())
        for i in batch:
            found[i] = [next(means) for _ in groups[i].responses]
    return [found[i] for i in range(len(groups))]
