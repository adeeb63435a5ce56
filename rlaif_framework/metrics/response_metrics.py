"""Means of the metrics of responses, and differences between policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif_framework.metrics.estimates import Estimate, estimate_fraction, estimate_mean
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample

Rows = Sequence[Mapping[str, float]]
"""The metrics of each response of a policy, in the order of the prompts. A response has those that apply to it."""
REPEATED_TOKENS = 4
"""Length of the token sequences of the repetition rate."""


def measure_sample(sample: Sample, text: str) -> dict[str, float]:
    """Measure what every sampled response has, independently of the task; see `MEASURED`.

    Args:
        sample: The response as sampled.
        text: The response after `Task.clean`.
    """
    return {
        "tokens": len(sample.ids),
        "eos_rate": float(sample.finished),  # 0 or 1 for a single response
        "empty_rate": float(not text.strip()),
        "repetition_rate": repetition_rate(sample.ids),
    }


def repetition_rate(ids: Sequence[int]) -> float:
    """Return the fraction of a response's sequences of 4 tokens that repeat an earlier one (seq-rep-4, Welleck 2020).

    Returns:
        A value in [0, 1); 0 for fewer than 4 tokens.
    """
    sequences = [tuple(ids[i : i + REPEATED_TOKENS]) for i in range(len(ids) - REPEATED_TOKENS + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def average_metrics(policies: Mapping[str, Rows], prompts: Sequence[Prompt]) -> dict[str, dict[str, Estimate | None]]:
    """Average each metric of each policy over the responses.

    Metrics whose values are all between 0 and 1, such as the EOS rate, have intervals within these bounds.

    Args:
        policies: The metrics of the responses, by policy.
        prompts: The prompt of each response.
    """
    # Over all policies, so that intervals of one metric can be compared.
    everything = [row for rows in policies.values() for row in rows]
    unbounded = {name for row in everything for name, value in row.items() if not 0 <= value <= 1}

    def average(name: str, rows: Rows) -> Estimate | None:
        pairs = [(row[name], prompt.text) for row, prompt in zip(rows, prompts, strict=True) if name in row]
        values, clusters = [value for value, _ in pairs], [text for _, text in pairs]
        return estimate_mean(values, clusters) if name in unbounded else estimate_fraction(values, clusters)

    return {policy: {name: average(name, rows) for name in _list_names(rows)} for policy, rows in policies.items()}


def measure_differences(first: Rows, second: Rows, prompts: Sequence[Prompt]) -> dict[str, Estimate]:
    """Compute the mean difference of each metric that both policies have, first minus second, paired by response."""
    found: dict[str, Estimate] = {}
    for name in _list_names(first):
        pairs = [
            (a[name] - b[name], prompt.text)
            for a, b, prompt in zip(first, second, prompts, strict=True)
            if name in a and name in b
        ]
        estimate = estimate_mean([difference for difference, _ in pairs], [text for _, text in pairs])
        if estimate is not None:
            found[name] = estimate
    return found


def _list_names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
