"""Decode a batch of prompts with shared prefixes: prefill once, then generate token by token from caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlaif_framework.models.packing import Group, split_by_tokens
from rlaif_framework.models.prefixes import Branches, forward_groups, read_cache

ATTENTION = "rlaif_branches"
"""Name under which transformers finds `attend_shared`."""

CACHE_BLOCK = 64
"""With CUDA graphs, which have fixed shapes, the cache of generated tokens is read in multiples of this length."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Length and distribution of generated tokens."""

    max_new_tokens: int
    """Maximum number of tokens to generate."""
    temperature: float = 1.0
    """Divisor of the logits; 0 is greedy."""
    top_k: int = 0
    """Sample among the k most likely tokens only; 0 is all."""


class Decoder:
    """Generates continuations for the groups of one batch.

    All groups have the same number of rows, some of which may be unused.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: Sequence[tuple[Tensor, Tensor]],
        branches: Branches,
        batch: Sequence[int],
        pad_id: int,
        budget: int,
    ) -> None:
        """Run the model on the prompts of a batch.

        Args:
            model: A causal LM for which `can_share_prefixes` holds.
            prefix: Keys and values of the prefix of all sequences.
            branches: All sequences.
            batch: Indices of the groups to decode.
            pad_id: Any token, to fill rows.
            budget: Maximum number of tokens in a pass over prompts.
        """
        self.model = model
        self.prompt_cache: list[tuple[Tensor, Tensor]] = []
        """Keys and values of the prompts in each layer, (groups, key heads, length, width)."""
        self.cache: list[tuple[Tensor, Tensor]] = []
        """Keys and values of generated tokens in each layer, (rows, key heads, steps, width)."""
        self.use_graphs = can_capture(model)
        self.replay: Callable[[], Tensor] | None = None
        """Replays the CUDA graph of a step; None until one has been captured for the current shapes."""
        self.tokens = torch.zeros(0, dtype=torch.long, device=model.device)
        """(rows,) last token of every row."""
        self.read_length = 0
        """Number of cached tokens that attention reads; positions that are not filled yet are masked."""
        self.length = 0
        """Number of generated tokens in the cache."""
        self.cache_position = torch.zeros(1, dtype=torch.long, device=model.device)
        """(1,) index of the next token in the cache; a tensor, because a CUDA graph would freeze a Python number."""
        logits, mask, positions = self._prefill([branches.groups[i] for i in batch], prefix, pad_id, budget)
        self.row_sequences, row_branches = _assign_rows([branches.members[i] for i in batch])
        self.logits = logits[row_branches].float()  # (rows, vocabulary)
        self.prompt_mask = mask[row_branches].view(len(batch), len(self.row_sequences[0]), -1)
        """(groups, rows per group, length) bool: tokens of the prompt that a row attends to."""
        self.positions = positions[row_branches]  # (rows,)

    def _prefill(
        self, groups: Sequence[Group], prefix: Sequence[tuple[Tensor, Tensor]], pad_id: int, budget: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the model on the prompts, batched by length, and store their keys and values.

        Returns:
            For every branch: (branches, vocabulary) logits after it, (branches, length) mask of the tokens that its
            last token attends to, and (branches,) position of the next token.
        """
        before = prefix[0][0].shape[2] if prefix else 0
        length = before + max(group.length for group in groups)
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        order: list[tuple[int, int]] = []  # group and branch of each result
        for part in split_by_tokens([group.length for group in groups], budget):
            cache = DynamicCache()
            logits, packed = forward_groups(self.model, [groups[i] for i in part], prefix, pad_id, cache)
            self._store_prompts(read_cache(cache), part, len(groups), length)
            rows, columns = packed.ends.T
            mask = packed.mask.new_zeros(len(rows), length)  # (branches, length)
            mask[:, :before] = True  # all branches attend to the whole prefix
            mask[:, before : before + packed.mask.shape[3]] = packed.mask[rows, 0, columns]
            results.append((logits, mask, packed.position_ids[rows, columns] + before + 1))
            order += [(i, branch) for i in part for branch in range(len(groups[i].responses))]
        # `split_by_tokens` orders groups by length; the results go back into the order of the groups.
        restore = sorted(range(len(order)), key=order.__getitem__)
        logits, mask, positions = (torch.cat(parts)[restore] for parts in zip(*results, strict=True))
        return logits, mask, positions

    def _store_prompts(
        self, layers: Sequence[tuple[Tensor, Tensor]], part: Sequence[int], groups: int, length: int
    ) -> None:
        """Copy the keys and values of some groups into the prompt cache, which is allocated on the first call."""
        if not self.prompt_cache:
            for keys, values in layers:
                new = [x.new_zeros(groups, x.shape[1], length, x.shape[3]) for x in (keys, values)]
                self.prompt_cache.append((new[0], new[1]))
        for kept, computed in zip(self.prompt_cache, layers, strict=True):
            for whole, some in zip(kept, computed, strict=True):
                whole[part, :, : some.shape[2]] = some

    def generate(
        self, sampling: Sampling, seeds: Sequence[int], stop_ids: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Generate until every row has a stop token or the maximum length.

        Args:
            sampling: Length and distribution of the tokens.
            seeds: Seed of each sequence.
            stop_ids: Tokens that end a continuation.

        Yields:
            The index of each sequence, and its new token ids.
        """
        steps, device = sampling.max_new_tokens, self.model.device
        self._allocate_cache(steps)
        flat = [i for group in self.row_sequences for i in group]
        sequences = torch.tensor(self.row_sequences, device=device)  # (groups, rows per group)
        unfinished = sequences.flatten() >= 0  # (rows,); unused rows are finished from the start
        # Drawn in advance from a seed per sequence: a result depends neither on the batch nor on rows that are dropped.
        uniforms = torch.stack([_draw_uniforms(seeds[i] if i >= 0 else 0, steps) for i in flat])
        uniforms = uniforms.to(device)  # (rows, steps)
        stops = torch.tensor(list(stop_ids), device=device)
        results: dict[int, list[int]] = {i: [] for i in flat if i >= 0}
        for step in range(steps):
            tokens = sample_tokens(self.logits, sampling, uniforms[:, step])
            for index, token, active in zip(
                sequences.flatten().tolist(), tokens.tolist(), unfinished.tolist(), strict=True
            ):
                if active:
                    results[index].append(token)
            unfinished &= ~torch.isin(tokens, stops)
            if step + 1 == steps or not unfinished.any():  # the logits after the last token are not needed
                break
            kept = self._drop_finished(unfinished.view(sequences.shape))
            if kept is not None:
                sequences = sequences.flatten()[kept]
                unfinished, uniforms, tokens = (x[kept.flatten()] for x in (unfinished, uniforms, tokens))
            self._decode(tokens)
        yield from results.items()

    def _allocate_cache(self, steps: int) -> None:
        """Allocate the keys and values of all tokens to be generated: their addresses must not change in a graph."""
        rows = len(self.logits)
        for keys, values in self.prompt_cache:
            new = [x.new_zeros(rows, x.shape[1], steps, x.shape[3]) for x in (keys, values)]
            self.cache.append((new[0], new[1]))

    def _decode(self, tokens: Tensor) -> None:
        """Compute the logits after the given tokens, (rows,).

        On a GPU, most of the time of a step is spent on launching hundreds of small kernels. The step is therefore
        captured as a CUDA graph, and replayed while its shapes stay the same. Without graphs, only the filled part of
        the cache is read.
        """
        read_length = self.length + 1
        if self.use_graphs:
            read_length = min(-(-read_length // CACHE_BLOCK) * CACHE_BLOCK, self.cache[0][0].shape[2])
        if read_length != self.read_length or len(tokens) != len(self.tokens):
            self.read_length, self.tokens, self.replay = read_length, tokens.clone(), None
            # The first step of a shape is not captured: libraries initialise themselves in it, which graphs forbid.
            self.logits = self._forward()
        else:
            self.tokens.copy_(tokens)
            self.replay = self.replay or capture(self._forward)
            self.logits = self.replay()
        self.length += 1
        self.cache_position += 1
        self.positions += 1

    def _forward(self) -> Tensor:
        """Return the logits after `tokens`, (rows, vocabulary) fp32, and store the tokens' keys and values."""
        # Computed here so that a captured graph updates it: (read length,) bool, positions that are not filled yet.
        self.future = torch.arange(self.read_length, device=self.cache_position.device) > self.cache_position
        with _attention(self.model, ATTENTION):
            # transformers keeps no cache: `attend` stores the keys and values.
            output = self.model(
                input_ids=self.tokens[:, None], position_ids=self.positions[:, None], use_cache=False, branches=self
            )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _drop_finished(self, unfinished: Tensor) -> Tensor | None:
        """Drop finished rows, if at most three quarters of the rows then remain.

        Groups without unfinished rows are dropped. The others keep the same number of rows, as many as the group with
        most unfinished ones needs; unfinished rows come first.

        Args:
            unfinished: (groups, rows per group) bool.

        Returns:
            (groups kept, rows per group) indices of the rows kept, or None if all are.
        """
        groups = unfinished.any(1)
        width = int(unfinished.sum(1).max())
        # Dropping rows copies the caches and, on a GPU, requires another graph: few rows are not worth it.
        if 4 * int(groups.sum()) * width > 3 * unfinished.numel():
            return None
        indices = torch.arange(unfinished.numel(), device=unfinished.device).view(unfinished.shape)
        first = unfinished.int().argsort(dim=1, descending=True, stable=True)[:, :width]  # (groups, rows kept)
        rows = indices.gather(1, first)[groups]  # (groups kept, rows kept)
        flat = rows.flatten()
        fewer_groups = len(rows) < len(unfinished)
        for layer, ((prompt_keys, prompt_values), (keys, values)) in enumerate(
            zip(self.prompt_cache, self.cache, strict=True)
        ):
            if fewer_groups:
                self.prompt_cache[layer] = prompt_keys[groups], prompt_values[groups]
            self.cache[layer] = keys[flat], values[flat]
        self.prompt_mask = self.prompt_mask.flatten(0, 1)[rows]
        self.positions = self.positions[flat]
        return rows

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Compute attention of one new token per row to its prompt and to the row's generated tokens.

        Args:
            layer: Index of the layer.
            query: (rows, heads, 1, width).
            key: (rows, key heads, 1, width), of the new token.
            value: As `key`.
            scaling: Factor of the scores.

        Returns:
            (rows, 1, heads, width).
        """
        prompt_keys, prompt_values = self.prompt_cache[layer]
        keys, values = self._append(layer, key, value)
        groups, per_group, length = self.prompt_mask.shape
        rows, heads, width = len(query), keys.shape[1], query.shape[3]
        shared = query.shape[1] // heads  # query heads per key head
        query = query * scaling
        by_row = query.view(rows, heads, shared, width)
        # The rows of a group attend to one copy of its prompt, as if they were heads.
        by_group = by_row.view(groups, per_group, heads, shared, width).transpose(1, 2)
        by_group = by_group.reshape(groups, heads, per_group * shared, width)
        prompt_scores = (by_group @ prompt_keys.transpose(2, 3)).view(groups, heads, per_group, shared, length)
        # Masked and normalised in fp32, like the attention of transformers.
        prompt_scores = prompt_scores.float().masked_fill(~self.prompt_mask[:, None, :, None], -torch.inf)
        scores = (by_row @ keys.transpose(2, 3)).float().masked_fill(self.future, -torch.inf)
        scores = scores.view(groups, per_group, heads, shared, -1).transpose(1, 2)
        # One softmax over both: (groups, key heads, rows per group, shared, length + read length).
        weights = torch.cat([prompt_scores, scores], 4).softmax(4).to(value.dtype)
        prompt_weights, own_weights = weights.split([length, self.read_length], 4)
        result = prompt_weights.reshape(groups, heads, per_group * shared, length) @ prompt_values
        result = result.view(groups, heads, per_group, shared, width).transpose(1, 2).reshape(rows, 1, -1, width)
        own_weights = own_weights.transpose(1, 2).reshape(rows, heads, shared, -1)
        whole: Tensor = result + (own_weights @ values).view(rows, 1, -1, width)
        return whole

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store a new token's keys and values; return those of the generated tokens, (rows, key heads, read, width)."""
        keys, values = self.cache[layer]
        # Explicit casts: autocast does not apply to in-place copies.
        keys.index_copy_(2, self.cache_position, key.to(keys.dtype))
        values.index_copy_(2, self.cache_position, value.to(values.dtype))
        return keys[:, :, : self.read_length], values[:, :, : self.read_length]


def _assign_rows(members: Sequence[list[list[int]]]) -> tuple[list[list[int]], list[int]]:
    """Assign each sequence to a row; groups get the same number of rows.

    Args:
        members: [group][branch] indices of sequences.

    Returns:
        [group][row] index of the row's sequence, -1 for an unused row; and the branch of each row, numbered over all
        groups.
    """
    width = max(sum(map(len, branches)) for branches in members)
    row_sequences: list[list[int]] = []
    row_branches: list[int] = []
    first = 0
    for branches in members:
        sequences = [index for indices in branches for index in indices]
        unused = width - len(sequences)  # such rows continue the first branch; their tokens are discarded
        row_sequences.append(sequences + [-1] * unused)
        row_branches += [first + b for b, indices in enumerate(branches) for _ in indices] + [first] * unused
        first += len(branches)
    return row_sequences, row_branches


def can_capture(model: PreTrainedModel) -> bool:
    """Return True if steps can be captured as CUDA graphs: on an NVIDIA GPU, unless RoPE depends on the longest row."""
    # Dynamic RoPE chooses its frequencies in Python from the largest position: a graph would freeze the choice.
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]
    return model.device.type == "cuda" and not any("dynamic" in kind or kind == "longrope" for kind in kinds)


def capture(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Capture the kernels that a function launches as a CUDA graph; return a function that replays it.

    The tensors that it reads and writes must keep their addresses; its result is overwritten by the next replay.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads may use CUDA meanwhile: only calls of this one that cannot be captured are errors.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def sample_tokens(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Sample a token for each row by inverting the cumulative distribution.

    Args:
        logits: (rows, vocabulary) fp32.
        sampling: Temperature and top k; temperature 0 takes the most likely token.
        uniforms: (rows,) random numbers in [0, 1); a row's token depends on its own number only.

    Returns:
        (rows,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(1)
    ids = None
    if 0 < sampling.top_k < logits.shape[1]:
        logits, ids = logits.topk(sampling.top_k, dim=1)
    sums = (logits / sampling.temperature).softmax(1).cumsum(1)  # (rows, candidates)
    # Scaled by the last sum, which differs slightly from 1 by rounding: no index lies beyond the last candidate.
    indices = torch.searchsorted(sums, (uniforms.to(sums.dtype) * sums[:, -1])[:, None], right=True)
    indices = indices.clamp(max=sums.shape[1] - 1)
    return (indices if ids is None else ids.gather(1, indices)).squeeze(1)


def _draw_uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend_shared(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of a layer in a decoding step; transformers calls this for every layer."""
    decoder: Decoder = rest["branches"]
    return decoder.attend(module.layer_idx, query, key, value, scaling or query.shape[-1] ** -0.5), None


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Use another attention function of transformers' `AttentionInterface` within the block."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    # The public setter would also change the nested configs, such as that of a vision tower.
    config._attn_implementation_internal = name
    try:
        yield
    finally:
        config._attn_implementation_internal = before
