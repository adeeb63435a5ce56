"""Generate from many prompts at once: shared beginnings are computed once, and their keys and values are kept once.

The rows of a batch that continue the same text attend to one copy of its keys and values (as in cascade or
shared-prefix attention), and to their own tokens in buffers that are filled in place. Against transformers' `generate`,
which keeps and copies all of it for every row and token, sampling several responses to a prompt takes a fraction of
the time; both give the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, GenerationConfig, PreTrainedModel

from rlaif_framework.branching import Branches, share_prefixes
from rlaif_framework.packing import Group, Packed, head_reads, pack_groups, split_by_tokens

ATTENTION = "rlaif_branches"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen."""

    max_new_tokens: int
    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_k: int = 0
    """Choose among the k likeliest tokens only; 0 is all."""


def can_branch(model: PreTrainedModel) -> bool:
    """Whether a model's attention can be exchanged for ours: full attention through transformers' interface."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "attn_logit_softcapping", None)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return bool(model._supports_attention_backend and plain and not window and config.model_type in FAMILIES)


FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gpt_neox")
"""Architectures whose greedy tokens and log-probabilities are tested to equal those of `generate`."""


@torch.no_grad()
def generate_branches(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    budget: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[list[int]]:
    """Continue each sequence; the result of one does not depend on what else is in the batch, up to rounding.

    Args:
        model: A causal LM for which `can_branch` holds.
        sequences: Token ids of the prompts; equal ones are computed once.
        sampling: How tokens are chosen.
        seeds: One for each sequence: its random numbers.
        stop_ids: Tokens that end a continuation; the one met is kept.
        pad_id: Any token, to fill rows.
        budget: Tokens at most in a batch, new ones included.
        track: Wraps the list of batches, for a progress bar.

    Returns:
        The new token ids of each sequence.
    """
    branches = share_prefixes(sequences)
    results: list[list[int]] = [[] for _ in sequences]
    AttentionInterface.register(ATTENTION, attend_branches)
    prefix = read_prefix(model, branches.prefix)
    lengths = [
        g.length + sum(map(len, owners)) * sampling.max_new_tokens
        for g, owners in zip(branches.groups, branches.members, strict=True)
    ]
    batches = split_by_tokens(lengths, budget, filled=budget)  # a step costs little more for more rows
    for batch in track(batches) if track else batches:
        decoder = _Decoder(model, prefix, len(branches.prefix), branches, batch, pad_id)
        for index, ids in decoder.run(sampling, seeds, stop_ids):
            results[index] = ids
    return results


@torch.no_grad()
def generate_rows(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    budget: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[list[int]]:
    """As `generate_branches`, by transformers' `generate`, for any causal LM; random numbers are a batch's, not a
    sequence's."""
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        # The whole distribution, whatever the model's own generation settings say.
        **(
            {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": 1.0} if sampling.temperature else {}
        ),
        pad_token_id=pad_id,
        eos_token_id=list(stop_ids),
    )
    results: list[list[int]] = [[] for _ in sequences]
    batches = split_by_tokens([len(x) + sampling.max_new_tokens for x in sequences], budget, filled=budget)
    for batch in track(batches) if track else batches:
        width = max(len(sequences[i]) for i in batch)
        inputs = torch.full((len(batch), width), pad_id)
        mask = torch.zeros_like(inputs)
        for row, i in enumerate(batch):
            inputs[row, width - len(sequences[i]) :] = torch.tensor(sequences[i])
            mask[row, width - len(sequences[i]) :] = 1
        with torch.random.fork_rng():
            torch.manual_seed(seeds[batch[0]])
            output = model.generate(  # type: ignore[operator]
                inputs.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
            )
        for i, new in zip(batch, output[:, width:].tolist(), strict=True):
            end = next((at for at, token in enumerate(new) if token in stop_ids), len(new) - 1)
            results[i] = new[: end + 1]
    return results


def read_prefix(model: PreTrainedModel, ids: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a text, a pair for each layer, (1, heads, length, width); none for an empty text."""
    if not ids:
        return []
    cache = DynamicCache(config=model.config)
    inputs = torch.tensor([list(ids)], device=model.device)
    nowhere = torch.zeros(0, dtype=torch.long, device=model.device)
    with head_reads(model.get_output_embeddings(), nowhere, nowhere):
        model(input_ids=inputs, past_key_values=cache, use_cache=True)
    return _read_cache(cache)


def read_groups(
    model: PreTrainedModel,
    groups: Sequence[Group],
    prefix: Sequence[tuple[Tensor, Tensor]],
    pad_id: int,
    cache: DynamicCache | None = None,
) -> tuple[Tensor, Packed]:
    """Logits after the last token of every branch, (branches, vocabulary), and the packed rows.

    Args:
        model: A causal LM of transformers.
        groups: A shared part and its branches each.
        prefix: What `read_prefix` gave for the text before all of them.
        pad_id: Any token, to fill rows.
        cache: Takes up the keys and values of prefix and rows, (groups, heads, length, width).
    """
    packed = pack_groups(groups, pad_id, model.device)
    inputs = packed.model_inputs(model)
    if prefix:
        size = prefix[0][0].shape[2]
        cache = DynamicCache(config=model.config) if cache is None else cache
        for layer, (keys, values) in enumerate(prefix):
            cache.update(keys.expand(len(groups), -1, -1, -1), values.expand(len(groups), -1, -1, -1), layer)
        inputs["position_ids"] = inputs["position_ids"] + size
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask.new_zeros(*mask.shape[:3], size), mask], 3)
    with head_reads(model.get_output_embeddings(), packed.ends[:, 0], packed.ends[:, 1]):
        logits = model(**inputs, past_key_values=cache, use_cache=cache is not None).logits[0]
    return logits, packed


class _Decoder:
    """The rows of one batch: groups of equally many rows, some of which may be empty."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: Sequence[tuple[Tensor, Tensor]],
        prefix_length: int,
        branches: Branches,
        batch: Sequence[int],
        pad_id: int,
    ) -> None:
        self.model, self.pad_id = model, pad_id
        cache = DynamicCache(config=model.config)
        logits, packed = read_groups(model, [branches.groups[i] for i in batch], prefix, pad_id, cache)
        self.prompts = _read_cache(cache)
        width = max(sum(map(len, branches.members[i])) for i in batch)
        self.owners: list[list[int]] = []
        """[group][row] index of the sequence; -1 for a row that is not used."""
        picks: list[int] = []
        rows: list[list[int]] = []
        branch = 0
        for i in batch:
            owners = [index for indices in branches.members[i] for index in indices]
            places = [branch + b for b, indices in enumerate(branches.members[i]) for _ in indices]
            self.owners.append(owners + [-1] * (width - len(owners)))
            rows.append(places + [branch] * (width - len(owners)))
            branch += len(branches.members[i])
        picks = [place for group in rows for place in group]
        self.logits = logits[picks].float()  # (rows, vocabulary)
        ends = packed.ends[picks]  # (rows, 2)
        visible = packed.mask[ends[:, 0], 0, ends[:, 1]]  # (rows, length): what the branch's last token sees
        ahead = torch.ones(len(picks), prefix_length, dtype=torch.bool, device=model.device)
        self.visible = torch.cat([ahead, visible], 1).view(len(batch), width, -1)
        self.positions = packed.position_ids[ends[:, 0], ends[:, 1]] + prefix_length + 1  # (rows,)
        self.own: list[tuple[Tensor, Tensor]] = []
        self.length = 0

    def run(self, sampling: Sampling, seeds: Sequence[int], stop_ids: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield `(sequence, new ids)` of every row."""
        steps = sampling.max_new_tokens
        rows = len(self.logits)
        for keys, values in self.prompts:
            new = [x.new_empty(rows, x.shape[1], steps, x.shape[3]) for x in (keys, values)]
            self.own.append((new[0], new[1]))
        owners = torch.tensor(self.owners, device=self.model.device)  # (groups, rows a group)
        alive = owners.flatten() >= 0
        draws = torch.stack([_draw_uniforms(seeds[i] if i >= 0 else 0, steps) for g in self.owners for i in g])
        draws = draws.to(self.model.device)  # (rows, steps)
        stops = torch.tensor(list(stop_ids), device=self.model.device)
        chosen: dict[int, list[int]] = {i: [] for g in self.owners for i in g if i >= 0}
        for step in range(steps):
            tokens = choose_tokens(self.logits, sampling, draws[:, step])
            for index, token, going in zip(owners.flatten().tolist(), tokens.tolist(), alive.tolist(), strict=True):
                if going:
                    chosen[index].append(token)
            alive &= ~torch.isin(tokens, stops)
            if step + 1 == steps or not alive.any():
                break
            busy = alive.view(owners.shape).any(1)  # (groups,)
            if 2 * int(busy.sum()) <= len(busy):
                kept = self._drop_groups(busy)
                owners, alive, draws, tokens = owners[busy], alive[kept], draws[kept], tokens[kept]
            self._advance(tokens)
        yield from chosen.items()

    def _advance(self, tokens: Tensor) -> None:
        """Compute the logits of the next token of every row."""
        with _attention(self.model, ATTENTION):
            output = self.model(
                input_ids=tokens[:, None], position_ids=self.positions[:, None], use_cache=False, branches=self
            )
        self.logits = output.logits[:, -1].float()
        self.length += 1
        self.positions = self.positions + 1

    def _drop_groups(self, kept: Tensor) -> Tensor:
        """Go on with some groups only, for the others have ended; gives the rows that stay."""
        rows = kept.repeat_interleave(self.visible.shape[1])
        self.prompts = [(keys[kept], values[kept]) for keys, values in self.prompts]
        self.own = [(keys[rows], values[rows]) for keys, values in self.own]
        self.visible, self.positions = self.visible[kept], self.positions[rows]
        return rows

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one new token a row to its prompt and to its own tokens.

        Args:
            layer: Index of the layer.
            query: (rows, heads, 1, width).
            key: (rows, key heads, 1, width), of the new token.
            value: As `key`.
            scaling: Factor of the scores.

        Returns:
            (rows, 1, heads, width).
        """
        prompt_keys, prompt_values = self.prompts[layer]  # (groups, key heads, length, width)
        own_keys, own_values = self.own[layer]  # (rows, key heads, steps, width)
        own_keys[:, :, self.length] = key[:, :, 0]
        own_values[:, :, self.length] = value[:, :, 0]
        own_keys, own_values = own_keys[:, :, : self.length + 1], own_values[:, :, : self.length + 1]
        groups, per_group, length = self.visible.shape
        heads = own_keys.shape[1]
        shared = query.shape[1] // heads  # query heads a key head
        rows, width = query.shape[0], query.shape[3]
        query = query * scaling
        own = query.view(rows, heads, shared, width)
        together = own.view(groups, per_group, heads, shared, width).transpose(1, 2)
        together = together.reshape(groups, heads, per_group * shared, width)
        before = (together @ prompt_keys.transpose(2, 3)).view(groups, heads, per_group, shared, length)
        before = before.float().masked_fill(~self.visible[:, None, :, None], -torch.inf)
        since = (own @ own_keys.transpose(2, 3)).float().view(groups, per_group, heads, shared, -1).transpose(1, 2)
        weights = torch.cat([before, since], 4).softmax(4).to(value.dtype)
        before, since = weights.split([length, self.length + 1], 4)
        result = before.reshape(groups, heads, per_group * shared, length) @ prompt_values
        result = result.view(groups, heads, per_group, shared, width).transpose(1, 2).reshape(rows, 1, -1, width)
        since = since.transpose(1, 2).reshape(rows, heads, shared, -1)
        whole: Tensor = result + (since @ own_values).view(rows, 1, -1, width)
        return whole


def choose_tokens(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Choose a token for each row.

    Args:
        logits: (rows, vocabulary) fp32.
        sampling: How; temperature 0 takes the likeliest.
        uniforms: (rows,) random numbers in [0, 1); a row's choice depends on its own number alone.

    Returns:
        (rows,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(1)
    ids = None
    if 0 < sampling.top_k < logits.shape[1]:
        logits, ids = logits.topk(sampling.top_k, dim=1)
    sums = (logits / sampling.temperature).softmax(1).cumsum(1)  # (rows, candidates)
    # Times the last sum, which rounding leaves a little off 1: never beyond the last candidate.
    places = torch.searchsorted(sums, (uniforms.to(sums.dtype) * sums[:, -1])[:, None], right=True)
    places = places.clamp(max=sums.shape[1] - 1)
    return (places if ids is None else ids.gather(1, places)).squeeze(1)


def _draw_uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend_branches(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for every layer while a `_Decoder` advances."""
    decoder: _Decoder = rest["branches"]
    return decoder.attend(module.layer_idx, query, key, value, scaling or query.shape[-1] ** -0.5), None


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Use another attention of transformers' interface for a while."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation_internal = name
    try:
        yield
    finally:
        config._attn_implementation_internal = before


def _read_cache(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]
