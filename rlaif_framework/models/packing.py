"""Lay a prompt and several responses out in one row, so that the prompt is computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif_framework.errors import ModelError
from rlaif_framework.models.packed_attention import Blocks, PackedAttention, is_prepared, make_additive


@dataclass(frozen=True, slots=True)
class Group:
    """Token ids of a prompt and of its responses."""

    prompt: list[int]
    responses: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all responses."""
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of groups as model inputs, and where its response tokens are."""

    input_ids: Tensor
    """(rows, length), each row prompt, response 1, response 2, ..., padding."""
    position_ids: Tensor
    """(rows, length); every response continues at its prompt's length."""
    mask: Tensor
    """(rows, 1, length, length) bool: who sees whom. A response token sees its prompt and its own response."""
    rows: Tensor
    """(response tokens,) row of the position that predicts each response token, responses one after another."""
    columns: Tensor
    """(response tokens,) column of that position."""
    targets: Tensor
    """(response tokens,) the token predicted."""
    response_index: Tensor
    """(response tokens,) index of the response each belongs to, counting over all groups."""
    ends: Tensor
    """(responses, 2) row and column of each response's last token."""
    blocks: Blocks | None = None
    """Where prompts and responses are, if attention takes less time for each by itself than for whole rows."""

    @property
    def responses(self) -> int:
        """Number of responses in the batch."""
        return len(self.ends)

    def to(self, device: torch.device) -> Packed:
        """The batch on another device."""
        parts = [getattr(self, field.name) for field in fields(self)]
        moved: list[Any] = [None if part is None else part.to(device) for part in parts]
        return Packed(*moved)

    def model_inputs(self, model: nn.Module) -> dict[str, Any]:
        """Inputs for a transformers model; masks are additive, as every attention implementation takes them.

        Raises:
            ModelError: It has layers that read a row from left to right whatever the mask, and a row several responses.
        """
        config = cast(PreTrainedModel, model).config.get_text_config()
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        additive = make_additive(self.mask, dtype)
        inputs: dict[str, Any] = {"input_ids": self.input_ids, "position_ids": self.position_ids}
        kinds = set(getattr(config, "layer_types", None) or ())
        if len(self.ends) > len(self.input_ids) and not kinds <= {FULL, SLIDING}:
            raise ModelError(
                f"'{config.model_type}' has layers of kind {', '.join(sorted(kinds - {FULL, SLIDING}))}, which would "
                "let the responses to a prompt see each other; use a model whose layers all attend by a mask"
            )
        window = getattr(config, "sliding_window", None)
        windowed = SLIDING in kinds or not kinds
        if window is not None and windowed and int(self.position_ids.max()) >= window:
            behind = self.position_ids[:, :, None] - self.position_ids[:, None, :]  # (rows, length, length)
            near = make_additive(self.mask & (behind < window)[:, None], dtype)
            if not kinds:  # all layers have the window
                return {**inputs, "attention_mask": near}
            inputs["attention_mask"] = {FULL: additive, SLIDING: near}
        else:
            inputs["attention_mask"] = additive
        if self.blocks is None or not is_prepared(cast(PreTrainedModel, model)):
            return inputs
        return {**inputs, "packed": PackedAttention(additive, self.blocks)}

    def per_response(self, values: Tensor) -> Tensor:
        """Sum a value per response token to one per response: (response tokens,) to (responses,)."""
        return torch.zeros(self.responses, dtype=values.dtype, device=values.device).index_add(
            0, self.response_index, values
        )


FULL, SLIDING = "full_attention", "sliding_attention"
"""What transformers calls layers that attend by a mask: to all that comes before, or to the last tokens of it."""


SCORES_A_TOKEN = 1500
"""Attention scores that take as long as all else that is computed of a token (a 135M model on a CPU)."""


SCORES_TO_CUT = 80
"""Attention scores that take as long as to cut a token's block out and put its result back (the same model)."""


def choose_rows(groups: Sequence[Group]) -> Sequence[Group]:
    """Groups as they are, or one a response where sharing prompts saves less than attention over long rows costs.

    Responses keep their order, so that what is computed of them is the same either way.
    """
    spread = [Group(group.prompt, [response]) for group in groups for response in group.responses]
    return min(groups, spread, key=_cost)


def _cost(rows: Sequence[Group]) -> float:
    """Time to compute rows, in tokens."""
    tokens = len(rows) * max(row.length for row in rows)
    scores = tokens**2 / len(rows) - max(0, _scores_saved(rows))
    return tokens + scores / SCORES_A_TOKEN


def _scores_saved(rows: Sequence[Group]) -> int:
    """By how many scores attention to prompts and responses, cut out, costs less than attention over whole rows."""
    width = max(row.length for row in rows)
    prompt = max(len(row.prompt) for row in rows)
    response = max(len(ids) for row in rows for ids in row.responses)
    count = sum(len(row.responses) for row in rows)
    by_blocks = len(rows) * prompt**2 + count * response * (prompt + response)
    return len(rows) * width * (width - SCORES_TO_CUT) - by_blocks


def pack_groups(groups: Sequence[Group], pad_id: int, device: torch.device) -> Packed:
    """Pack prompts with their responses, one row a group; every response must have at least one token."""
    length = max(g.length for g in groups)
    ids = torch.full((len(groups), length), pad_id)
    positions = torch.zeros((len(groups), length), dtype=torch.long)
    segments = torch.full((len(groups), length), -1)  # 0 prompt, 1.. responses, -1 padding
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    response_index: list[int] = []
    ends: list[tuple[int, int]] = []
    for row, group in enumerate(groups):
        size = len(group.prompt)
        ids[row, :size] = torch.tensor(group.prompt)
        positions[row, :size] = torch.arange(size)
        segments[row, :size] = 0
        start = size
        for number, response in enumerate(group.responses, 1):
            end = start + len(response)
            ids[row, start:end] = torch.tensor(response)
            positions[row, start:end] = torch.arange(size, size + len(response))
            segments[row, start:end] = number
            columns += [size - 1, *range(start, end - 1)]
            rows += [row] * len(response)
            targets += response
            response_index += [len(ends)] * len(response)
            ends.append((row, end - 1))
            start = end
    queries, keys = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = causal & ((keys == 0) | (keys == queries)) & (keys >= 0)
    mask |= torch.eye(length, dtype=torch.bool)  # padding sees itself: a row of softmax over nothing is NaN
    cut = device.type == "cpu" and _scores_saved(groups) > 0  # a GPU takes long to launch, not to compute
    return Packed(
        ids.to(device),
        positions.to(device),
        mask[:, None].to(device),
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(response_index, device=device),
        torch.tensor(ends, device=device),
        _cut_blocks(groups, length) if cut else None,
    )


def _cut_blocks(groups: Sequence[Group], length: int) -> Blocks:
    prompt = max(len(group.prompt) for group in groups)
    response = max(len(ids) for group in groups for ids in group.responses)
    within, before = torch.arange(response), torch.arange(prompt)
    causal = torch.ones(response, response, dtype=torch.bool).tril()
    back = torch.zeros(len(groups), length, dtype=torch.long)
    places: list[Tensor] = []
    response_index: list[int] = []
    masks: list[Tensor] = []
    for row, group in enumerate(groups):
        column = len(group.prompt)
        back[row, :column] = row * prompt + before[:column]
        for ids in group.responses:
            size = len(ids)
            back[row, column : column + size] = len(groups) * prompt + len(response_index) * response + within[:size]
            places.append(row * length + column + within.clamp(max=size - 1))
            response_index.append(row)
            masks.append(torch.cat([(before < len(group.prompt)).expand(response, -1), causal], 1))
            column += size
    return Blocks(torch.stack(places), torch.tensor(response_index), torch.stack(masks)[:, None], back.flatten())


@contextmanager
def select_head_positions(head: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let a model's head compute only the given positions; its output is then (1, positions, vocabulary).

    The hook sits before the head, so whatever a model does to its logits afterwards (soft-capping, scaling) stays.
    """
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, columns][None],))
    try:
        yield
    finally:
        handle.remove()


PASS_ON_CPU, PASS_ON_GPU = 128, 4096
"""What a pass costs beside its tokens, in tokens: on a CPU 60 for a 135M model in fp32 and more in bf16; on a GPU the
launches of a pass cost 3,100 with gradients and 3,400 without (a 1B model on an H200, bf16)."""


def split_by_tokens(lengths: Sequence[int], budget: int, overhead: int | None = None) -> list[list[int]]:
    """Group indices, longest first, so that padding and passes together cost least.

    A batch costs its longest length times its size, which stays within `budget`, and `overhead`, by default what a pass
    costs on this machine. An item longer than the budget gets a batch of its own.
    """
    if overhead is None:
        overhead = PASS_ON_GPU if torch.accelerator.is_available() else PASS_ON_CPU
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    costs = [0]  # of the best way to batch so many of the longest
    starts = [0]  # where the last batch of that way begins
    for end in range(1, len(order) + 1):
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
