"""Pack a prompt and its responses into one row, so that the prompt is computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif_framework.errors import ModelError
from rlaif_framework.models.layouts import layout_of
from rlaif_framework.models.packed_attention import Blocks, PackedAttention, is_prepared, make_additive
from rlaif_framework.models.positions import check_length


@dataclass(frozen=True, slots=True)
class Group:
    """Token ids of a prompt and of responses to it."""

    prompt: list[int]
    """Token ids of the prompt."""
    responses: list[list[int]]
    """Token ids of each response."""

    @property
    def length(self) -> int:
        """Tokens of the prompt and all responses."""
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest response."""
        return len(self.prompt) + max(map(len, self.responses), default=0)


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of groups as model inputs, and the positions of its response tokens."""

    input_ids: Tensor
    """(rows, length), each row prompt, response 1, response 2, ..., padding."""
    position_ids: Tensor
    """(rows, length); every response continues at its prompt's length."""
    mask: Tensor
    """(rows, 1, length, length) bool attention mask: a response token attends to its prompt and its own response."""
    rows: Tensor
    """(response tokens,) row of the position that predicts each response token, responses one after another."""
    columns: Tensor
    """(response tokens,) column of that position."""
    targets: Tensor
    """(response tokens,) the token predicted."""
    response_index: Tensor
    """(response tokens,) response of each token, numbered over all groups."""
    ends: Tensor
    """(responses, 2) row and column of each response's last token."""
    blocks: Blocks | None = None
    """Positions of prompts and responses, if attention by blocks takes less time than attention over whole rows."""
    groups: tuple[Group, ...] = ()
    """Groups that the rows hold."""

    @property
    def responses(self) -> int:
        """Number of responses in the batch."""
        return len(self.ends)

    def to(self, device: torch.device) -> Packed:
        """Copy the batch to another device."""
        parts = [getattr(self, field.name) for field in fields(self)]
        moved: list[Any] = [part.to(device) if isinstance(part, (Tensor, Blocks)) else part for part in parts]
        return Packed(*moved)

    def fit(self, model: nn.Module) -> Packed:
        """Return the batch in rows that the model can compute: as it is, or with one row for each response."""
        if layout_of(model).packed or len(self.ends) == len(self.input_ids):
            return self
        return pack_groups(separate_responses(self.groups), int(self.input_ids[0, 0]), self.input_ids.device)

    def locate(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the tokens at the given rows and columns are if each response has a row of its own."""
        length = self.input_ids.shape[1]
        ends = self.ends[:, 0] * length + self.ends[:, 1]  # ascending
        # The first response that has not ended; for a token of the prompt, the first one in its row.
        return torch.searchsorted(ends, rows * length + columns), self.position_ids[rows, columns]

    def model_inputs(self, model: nn.Module, before: int = 0) -> dict[str, Any]:
        """Return the inputs of a transformers model; masks are additive, which all attention implementations accept.

        Args:
            model: A model of transformers.
            before: Length of a prefix of all rows whose keys and values are cached.

        Raises:
            ModelError: A sequence is longer than the model's positions, or a row has several responses, and the model
                has recurrent layers, which ignore masks.
        """
        longest = max((group.longest for group in self.groups), default=0)
        whole = cast(PreTrainedModel, model).config
        check_length(whole, before + longest, "a prompt with its response", "shorten the prompts or responses")
        if not layout_of(model).packed:
            if before or len(self.ends) != len(self.input_ids):
                raise ValueError("the model needs a row for each sequence; see `fit` and `arrange_sequences`")
            sizes = torch.tensor([group.length for group in self.groups], device=self.input_ids.device)
            within = torch.arange(self.input_ids.shape[1], device=sizes.device) < sizes[:, None]
            return {"input_ids": self.input_ids, "attention_mask": within.long()}
        config = cast(PreTrainedModel, model).config.get_text_config()
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        positions = self.position_ids + before
        # All tokens attend to the whole prefix: (rows, 1, length, before + length).
        mask = torch.cat([self.mask.new_ones(*self.mask.shape[:3], before), self.mask], 3) if before else self.mask
        additive = make_additive(mask, dtype)
        inputs: dict[str, Any] = {"input_ids": self.input_ids, "position_ids": positions}
        kinds = set(getattr(config, "layer_types", None) or ())
        if len(self.ends) > len(self.input_ids):  # some row has several responses
            _check_layers(config.model_type, kinds)
        window = getattr(config, "sliding_window", None)
        windowed = SLIDING in kinds or not kinds
        # Within the window, both masks are the same.
        if window is not None and windowed and int(positions.max()) >= window:
            # By positions instead of columns: all responses start at the same distance from their prompt.
            prefix = torch.arange(before, device=positions.device).expand(len(positions), -1)
            seen = torch.cat([prefix, positions], 1)  # (rows, before + length)
            distance = positions[:, :, None] - seen[:, None, :]  # (rows, length, before + length)
            windowed_mask = make_additive(mask & (distance < window)[:, None], dtype)
            if not kinds:  # all layers have the window
                return {**inputs, "attention_mask": windowed_mask}
            inputs["attention_mask"] = {FULL: additive, SLIDING: windowed_mask}
        else:
            inputs["attention_mask"] = additive
        if before or self.blocks is None or not is_prepared(cast(PreTrainedModel, model)):
            return inputs
        return {**inputs, "packed": PackedAttention(additive, self.blocks)}

    def per_response(self, values: Tensor) -> Tensor:
        """Sum values over the tokens of each response: (response tokens,) to (responses,)."""
        return torch.zeros(self.responses, dtype=values.dtype, device=values.device).index_add(
            0, self.response_index, values
        )


def _check_layers(model_type: str, kinds: set[str]) -> None:
    """Raise a `ModelError` if a model has layers other than attention, in which responses would affect each other."""
    other = kinds - {FULL, SLIDING}
    if other:
        raise ModelError(
            f"'{model_type}' has layers of kind {', '.join(sorted(other))}, which ignore attention masks: the "
            "responses to a prompt would affect each other; use a model with attention layers only"
        )


FULL, SLIDING = "full_attention", "sliding_attention"
"""Names in transformers of layers that attend to all previous positions, or to a window of them."""

SCORES_PER_TOKEN = 1500
"""Number of attention scores that take as long to compute as everything else for a token (a 135M model on a CPU)."""

BLOCK_OVERHEAD = 80
"""Number of attention scores that take as long as gathering and restoring one token of a block (the same model)."""


def choose_rows(groups: Sequence[Group]) -> Sequence[Group]:
    """Return groups as they are, or one group per response where attention over long rows would cost more.

    Responses keep their order, so that results are the same in both layouts.
    """
    return min(groups, separate_responses(groups), key=_estimate_cost)


def separate_responses(groups: Sequence[Group]) -> list[Group]:
    """Return one group per response."""
    return [Group(group.prompt, [response]) for group in groups for response in group.responses]


def _estimate_cost(groups: Sequence[Group]) -> float:
    """Estimate the time to compute groups as rows, in tokens."""
    tokens = len(groups) * max(group.length for group in groups)  # padding included
    scores = tokens**2 / len(groups) - max(0, _count_saved_scores(groups))
    return tokens + scores / SCORES_PER_TOKEN


def _count_saved_scores(groups: Sequence[Group]) -> int:
    """Count the attention scores that blocks save compared with whole rows, minus their overhead."""
    width = max(group.length for group in groups)
    prompt = max(len(group.prompt) for group in groups)
    response = max(len(ids) for group in groups for ids in group.responses)
    count = sum(len(group.responses) for group in groups)
    by_blocks = len(groups) * prompt**2 + count * response * (prompt + response)
    return len(groups) * width * (width - BLOCK_OVERHEAD) - by_blocks


def pack_groups(groups: Sequence[Group], pad_id: int, device: torch.device, blocks: bool | None = None) -> Packed:
    """Pack prompts with their responses, one row for each group; every response must have at least one token.

    Args:
        groups: Prompts and responses.
        pad_id: Any token, to fill rows.
        device: Device of the batch.
        blocks: Compute attention by blocks; by default, if that takes less time.
    """
    length = max(g.length for g in groups)
    ids, positions, segments = _fill_rows(groups, length, pad_id)
    rows, columns, response_index, ends = _index_responses(groups)
    targets = [token for group in groups for response in group.responses for token in response]
    # On a GPU, launching the additional kernels takes longer than computing the scores that they save.
    use_blocks = device.type == "cpu" and _count_saved_scores(groups) > 0 if blocks is None else blocks
    return Packed(
        ids.to(device),
        positions.to(device),
        _build_mask(segments)[:, None].to(device),
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(response_index, device=device),
        torch.tensor(ends, device=device),
        _index_blocks(groups, length) if use_blocks else None,
        tuple(groups),
    )


def _fill_rows(groups: Sequence[Group], length: int, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fill rows with token ids, positions and segments: 0 for the prompt, 1.. for responses, -1 for padding.

    Returns:
        (groups, length) each.
    """
    ids = torch.full((len(groups), length), pad_id)
    positions = torch.zeros((len(groups), length), dtype=torch.long)
    segments = torch.full((len(groups), length), -1)
    for row, group in enumerate(groups):
        size = len(group.prompt)
        start = 0
        for segment, tokens in enumerate([group.prompt, *group.responses]):
            end = start + len(tokens)
            first = size if segment else 0  # every response continues at its prompt's length
            ids[row, start:end] = torch.tensor(tokens)
            positions[row, start:end] = torch.arange(first, first + len(tokens))
            segments[row, start:end] = segment
            start = end
    return ids, positions, segments


def _index_responses(groups: Sequence[Group]) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Find the response tokens of packed rows.

    Returns:
        Row and column of the position that predicts each response token, the response of each token, and row and column
        of the last token of each response.
    """
    rows: list[int] = []
    columns: list[int] = []
    response_index: list[int] = []
    ends: list[tuple[int, int]] = []
    for row, group in enumerate(groups):
        start = len(group.prompt)
        for response in group.responses:
            end = start + len(response)
            # The prompt's last token predicts the first token of every response.
            columns += [len(group.prompt) - 1, *range(start, end - 1)]
            rows += [row] * len(response)
            response_index += [len(ends)] * len(response)
            ends.append((row, end - 1))
            start = end
    return rows, columns, response_index, ends


def _build_mask(segments: Tensor) -> Tensor:
    """Build the attention mask of packed rows: (rows, length) segments to (rows, length, length) bool."""
    length = segments.shape[1]
    queries, keys = segments[:, :, None], segments[:, None, :]  # (rows, length, 1) and (rows, 1, length)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = causal & ((keys == 0) | (keys == queries)) & (keys >= 0)
    # Padding attends to itself, because a softmax over no positions is NaN.
    return mask | torch.eye(length, dtype=torch.bool)


def _index_blocks(groups: Sequence[Group], length: int) -> Blocks:
    """Find the prompts and responses of packed rows, for attention by blocks."""
    prompt = max(len(group.prompt) for group in groups)
    response = max(len(ids) for group in groups for ids in group.responses)
    within, before = torch.arange(response), torch.arange(prompt)
    causal = torch.ones(response, response, dtype=torch.bool).tril()
    restore = torch.zeros(len(groups), length, dtype=torch.long)
    gather: list[Tensor] = []
    rows: list[int] = []
    masks: list[Tensor] = []
    for row, group in enumerate(groups):
        column = len(group.prompt)
        restore[row, :column] = row * prompt + before[:column]
        for ids in group.responses:
            size = len(ids)
            restore[row, column : column + size] = len(groups) * prompt + len(rows) * response + within[:size]
            # Positions after the end of a shorter response repeat its last token; their results are not used.
            gather.append(row * length + column + within.clamp(max=size - 1))
            rows.append(row)
            masks.append(torch.cat([(before < len(group.prompt)).expand(response, -1), causal], 1))
            column += size
    return Blocks(torch.stack(gather), torch.tensor(rows), torch.stack(masks)[:, None], restore.flatten())


@contextmanager
def select_head_positions(head: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Restrict a model's head to the given positions; its output is then (1, positions, vocabulary)."""
    # The hook runs before the head: what the model does to its logits afterwards (soft-capping, scaling) is unchanged.
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, columns][None],))
    try:
        yield
    finally:
        handle.remove()


PASS_ON_CPU, PASS_ON_GPU = 128, 4096
"""Fixed cost of a pass, in tokens. Measured: on a CPU 60 for a 135M model in fp32, and more in bf16; on an H200, where
it is the cost of launching kernels, 3,100 with gradients and 3,400 without for a 1B model in bf16."""


def split_by_tokens(lengths: Sequence[int], budget: int, overhead: int | None = None) -> list[list[int]]:
    """Split items into batches that minimise the sum of padding and the fixed cost of passes.

    Args:
        lengths: Tokens of each item.
        budget: Maximum of a batch's longest length times its size; a longer item gets a batch of its own.
        overhead: Fixed cost of a batch in tokens; default: that of a pass on this machine.

    Returns:
        Indices of the items of each batch, longest items first.
    """
    if overhead is None:
        overhead = PASS_ON_GPU if torch.accelerator.is_available() else PASS_ON_CPU
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    # Dynamic programming over prefixes of the order: the best batches are contiguous in it, and each is as wide as its
    # first item.
    costs = [0]  # least cost of the first 0, 1, .. items
    starts = [0]  # start of the last batch in that solution
    for end in range(1, len(order) + 1):
        # A batch of one item is always allowed, even over the budget.
        best = costs[end - 1] + lengths[order[end - 1]], end - 1
        for start in range(end - 2, -1, -1):
            size = lengths[order[start]] * (end - start)
            if size > budget:
                break
            best = min(best, (costs[start] + size, start))
        costs.append(best[0] + overhead)
        starts.append(best[1])
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[starts[end] : end])
        end = starts[end]
    return batches[::-1]
