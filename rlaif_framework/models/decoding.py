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

from rlaif_framework.models.packing import Group, Packed, pack_groups, select_head_positions, split_by_tokens
from rlaif_framework.models.prefixes import Branches, share_prefixes

ATTENTION = "rlaif_branches"


REACH = 64
"""Own tokens are read in multiples of so many where steps are recorded: a recording has one shape."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen."""

    max_new_tokens: int
    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_k: int = 0
    """Choose among the k likeliest tokens only; 0 is all."""


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether a model's attention can be exchanged for ours: full attention through transformers' interface."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "attn_logit_softcapping", None)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return bool(model._supports_attention_backend and plain and not window and config.model_type in FAMILIES)


FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gpt_neox")
"""Architectures whose greedy tokens and log-probabilities are tested to equal those of `generate`."""


@torch.no_grad()
def generate_shared(
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
        model: A causal LM for which `can_share_prefixes` holds.
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
    AttentionInterface.register(ATTENTION, attend_shared)
    prefix = compute_prefix(model, branches.prefix)
    lengths = [
        g.length + sum(map(len, owners)) * sampling.max_new_tokens
        for g, owners in zip(branches.groups, branches.members, strict=True)
    ]
    batches = split_by_tokens(lengths, budget, overhead=budget)  # a step costs little more for more rows
    for batch in track(batches) if track else batches:
        decoder = _Decoder(model, prefix, branches, batch, pad_id, budget)
        for index, ids in decoder.run(sampling, seeds, stop_ids):
            results[index] = ids
    return results


@torch.no_grad()
@contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Sample from the whole distribution: `generate` takes what it is not told from the model's own settings, such as a
    repetition penalty."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def generate_padded(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    budget: int,
    track: Callable[[list[list[int]]], Iterable[list[int]]] | None = None,
) -> list[list[int]]:
    """As `generate_shared`, by transformers' `generate`, for any causal LM; random numbers are a batch's, not a
    sequence's."""
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        **(
            {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": 1.0} if sampling.temperature else {}
        ),
        pad_token_id=pad_id,
        eos_token_id=list(stop_ids),
    )
    results: list[list[int]] = [[] for _ in sequences]
    batches = split_by_tokens([len(x) + sampling.max_new_tokens for x in sequences], budget, overhead=budget)
    for batch in track(batches) if track else batches:
        width = max(len(sequences[i]) for i in batch)
        inputs = torch.full((len(batch), width), pad_id)
        mask = torch.zeros_like(inputs)
        for row, i in enumerate(batch):
            inputs[row, width - len(sequences[i]) :] = torch.tensor(sequences[i])
            mask[row, width - len(sequences[i]) :] = 1
        with torch.random.fork_rng(), _own_settings_aside(model):
            torch.manual_seed(seeds[batch[0]])
            output = model.generate(  # type: ignore[operator]
                inputs.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
            )
        for i, new in zip(batch, output[:, width:].tolist(), strict=True):
            end = next((at for at, token in enumerate(new) if token in stop_ids), len(new) - 1)
            results[i] = new[: end + 1]
    return results


def compute_prefix(model: PreTrainedModel, ids: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a text, a pair for each layer, (1, heads, length, width); none for an empty text."""
    if not ids:
        return []
    cache = DynamicCache(config=model.config)
    inputs = torch.tensor([list(ids)], device=model.device)
    nowhere = torch.zeros(0, dtype=torch.long, device=model.device)
    with select_head_positions(model.get_output_embeddings(), nowhere, nowhere):
        model(input_ids=inputs, past_key_values=cache, use_cache=True)
    return _read_cache(cache)


def forward_groups(
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
        prefix: What `compute_prefix` gave for the text before all of them.
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
    with select_head_positions(model.get_output_embeddings(), packed.ends[:, 0], packed.ends[:, 1]):
        logits = model(**inputs, past_key_values=cache, use_cache=cache is not None).logits[0]
    return logits, packed


class _Decoder:
    """The rows of one batch: groups of equally many rows, some of which may be empty."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: Sequence[tuple[Tensor, Tensor]],
        branches: Branches,
        batch: Sequence[int],
        pad_id: int,
        budget: int,
    ) -> None:
        self.model = model
        self.prompts: list[tuple[Tensor, Tensor]] = []
        """Keys and values of each layer, (groups, key heads, length, width)."""
        self.own: list[tuple[Tensor, Tensor]] = []
        """Keys and values of each layer, (rows, key heads, steps, width)."""
        self.records = can_capture(model)
        self.replay: Callable[[], Tensor] | None = None
        self.tokens = torch.zeros(0, dtype=torch.long, device=model.device)
        """The last token of every row, (rows,)."""
        self.reach = 0
        """How many own tokens are read; those that are not there yet are masked."""
        self.length = 0
        self.place = torch.zeros(1, dtype=torch.long, device=model.device)
        """Where the keys and values of the next own token go, as a tensor: a recording holds no Python number."""
        members = [branches.members[i] for i in batch]
        logits, visible, positions = self._read([branches.groups[i] for i in batch], prefix, pad_id, budget)
        width = max(sum(map(len, indices)) for indices in members)
        self.owners: list[list[int]] = []
        """[group][row] index of the sequence; -1 for a row that is not used."""
        picks: list[int] = []
        first = 0
        for branch_members in members:
            owners = [index for indices in branch_members for index in indices]
            spare = width - len(owners)
            self.owners.append(owners + [-1] * spare)
            picks += [first + b for b, indices in enumerate(branch_members) for _ in indices] + [first] * spare
            first += len(branch_members)
        self.logits = logits[picks].float()  # (rows, vocabulary)
        self.visible = visible[picks].view(len(batch), width, -1)
        self.positions = positions[picks]  # (rows,)

    def _read(
        self, groups: Sequence[Group], prefix: Sequence[tuple[Tensor, Tensor]], pad_id: int, budget: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the prompts, those of like length at once; keep their keys and values.

        Returns:
            Of every branch: the logits after it, (branches, vocabulary), what its last token sees, (branches, length),
            and the position that follows, (branches,).
        """
        before = prefix[0][0].shape[2] if prefix else 0
        length = before + max(group.length for group in groups)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        order: list[tuple[int, int]] = []
        for part in split_by_tokens([group.length for group in groups], budget):
            cache = DynamicCache(config=self.model.config)
            logits, packed = forward_groups(self.model, [groups[i] for i in part], prefix, pad_id, cache)
            layers = _read_cache(cache)
            if not self.prompts:
                self.prompts = [
                    (self._make_room(keys, len(groups), length), self._make_room(values, len(groups), length))
                    for keys, values in layers
                ]
            for kept, new in zip(self.prompts, layers, strict=True):
                for whole, some in zip(kept, new, strict=True):
                    whole[part, :, : some.shape[2]] = some
            rows, columns = packed.ends.T
            visible = packed.mask.new_zeros(len(rows), length)
            visible[:, :before] = True
            visible[:, before : before + packed.mask.shape[3]] = packed.mask[rows, 0, columns]
            found.append((logits, visible, packed.position_ids[rows, columns] + before + 1))
            order += [(i, branch) for i in part for branch in range(len(groups[i].responses))]
        back = sorted(range(len(order)), key=order.__getitem__)
        logits, visible, positions = (torch.cat(parts)[back] for parts in zip(*found, strict=True))
        return logits, visible, positions

    @staticmethod
    def _make_room(like: Tensor, groups: int, length: int) -> Tensor:
        return like.new_zeros(groups, like.shape[1], length, like.shape[3])

    def run(self, sampling: Sampling, seeds: Sequence[int], stop_ids: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield `(sequence, new ids)` of every row."""
        steps = sampling.max_new_tokens
        rows = len(self.logits)
        for keys, values in self.prompts:
            new = [x.new_zeros(rows, x.shape[1], steps, x.shape[3]) for x in (keys, values)]
            self.own.append((new[0], new[1]))
        owners = torch.tensor(self.owners, device=self.model.device)  # (groups, rows a group)
        alive = owners.flatten() >= 0
        draws = torch.stack([_draw_uniforms(seeds[i] if i >= 0 else 0, steps) for g in self.owners for i in g])
        draws = draws.to(self.model.device)  # (rows, steps)
        stops = torch.tensor(list(stop_ids), device=self.model.device)
        chosen: dict[int, list[int]] = {i: [] for g in self.owners for i in g if i >= 0}
        for step in range(steps):
            tokens = sample_tokens(self.logits, sampling, draws[:, step])
            for index, token, going in zip(owners.flatten().tolist(), tokens.tolist(), alive.tolist(), strict=True):
                if going:
                    chosen[index].append(token)
            alive &= ~torch.isin(tokens, stops)
            if step + 1 == steps or not alive.any():
                break
            kept = self._shrink(alive.view(owners.shape))
            if kept is not None:
                owners = owners.flatten()[kept]
                alive, draws, tokens = (x[kept.flatten()] for x in (alive, draws, tokens))
            self._advance(tokens)
        yield from chosen.items()

    def _advance(self, tokens: Tensor) -> None:
        """Compute the logits of the next token of every row.

        On a GPU a step is mostly the time that the launches of its hundreds of kernels take, so it is recorded and
        launched as one, as long as neither rows nor reach change. On a CPU the reach grows with every token.
        """
        reach = self.length + 1
        if self.records:
            reach = min(-(-reach // REACH) * REACH, self.own[0][0].shape[2])
        if reach != self.reach or len(tokens) != len(self.tokens):
            self.reach, self.tokens, self.replay = reach, tokens.clone(), None
            self.logits = self._forward()  # the libraries set themselves up in it, which no recording may hold
        else:
            self.tokens.copy_(tokens)
            self.replay = self.replay or record(self._forward)
            self.logits = self.replay()
        self.length += 1
        self.place += 1
        self.positions += 1

    def _forward(self) -> Tensor:
        """Logits after `tokens` at `positions`, (rows, vocabulary) fp32; their keys and values go to `place`."""
        self.later = torch.arange(self.reach, device=self.place.device) > self.place
        with _attention(self.model, ATTENTION):
            output = self.model(
                input_ids=self.tokens[:, None], position_ids=self.positions[:, None], use_cache=False, branches=self
            )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _shrink(self, alive: Tensor) -> Tensor | None:
        """Drop rows that have ended, once that leaves three quarters of them or fewer.

        Groups of which no row goes on are dropped; the others keep as many rows as the one that needs most, those that
        go on first.

        Args:
            alive: (groups, rows a group) bool: whether a row goes on.

        Returns:
            The rows that stay, (groups that stay, rows a group), or None if all do.
        """
        groups = alive.any(1)
        width = int(alive.sum(1).max())
        if 4 * int(groups.sum()) * width > 3 * alive.numel():
            return None
        places = torch.arange(alive.numel(), device=alive.device).view(alive.shape)
        first = alive.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        rows = places.gather(1, first)[groups]
        flat = rows.flatten()
        fewer = len(rows) < len(alive)
        for layer, ((keys, values), (own_keys, own_values)) in enumerate(zip(self.prompts, self.own, strict=True)):
            if fewer:
                self.prompts[layer] = keys[groups], values[groups]
            self.own[layer] = own_keys[flat], own_values[flat]
        self.visible = self.visible.flatten(0, 1)[rows]
        self.positions = self.positions[flat]
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
        prompt_keys, prompt_values = self.prompts[layer]
        own_keys, own_values = self.own[layer]
        own_keys.index_copy_(2, self.place, key.to(own_keys.dtype))  # autocast does not see to this
        own_values.index_copy_(2, self.place, value.to(own_values.dtype))
        own_keys, own_values = own_keys[:, :, : self.reach], own_values[:, :, : self.reach]
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
        since = (own @ own_keys.transpose(2, 3)).float().masked_fill(self.later, -torch.inf)
        since = since.view(groups, per_group, heads, shared, -1).transpose(1, 2)
        weights = torch.cat([before, since], 4).softmax(4).to(value.dtype)
        before, since = weights.split([length, self.reach], 4)
        result = before.reshape(groups, heads, per_group * shared, length) @ prompt_values
        result = result.view(groups, heads, per_group, shared, width).transpose(1, 2).reshape(rows, 1, -1, width)
        since = since.transpose(1, 2).reshape(rows, heads, shared, -1)
        whole: Tensor = result + (since @ own_values).view(rows, 1, -1, width)
        return whole


def can_capture(model: PreTrainedModel) -> bool:
    """Whether a step may be recorded: on an NVIDIA GPU, and with rotations that do not depend on the longest row."""
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]
    return model.device.type == "cuda" and not any("dynamic" in kind or kind == "longrope" for kind in kinds)


def record(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record the kernels that `work` launches, as a CUDA graph, and give a function that launches them all again.

    The tensors that it reads and writes must stay where they are; what it returns is overwritten by the next call.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def sample_tokens(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
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


def attend_shared(
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
