"""Means of the metrics of responses, and differences between policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif_framework.metrics.estimates import Estimate, estimate_fraction, estimate_mean
from rlaif_framework.records.preferences import Prompt

Rows = Sequence[Mapping[str, float]]
"""The metrics of each response of a policy, in the order of the prompts."""


def average_metrics(policies: Mapping[str, Rows], prompts: Sequence[Prompt]) -> dict[str, dict[str, Estimate | None]]:
    """Average each metric of each policy over the responses.

    Metrics whose values are all between 0 and 1, such as the EOS rate, have intervals within these bounds.

    Args:
        policies: The metrics of the responses, by policy.
        prompts: The prompt of each response.
    """
    clusters = [prompt.text for prompt in prompts]
    # Over all policies, so that intervals of one metric can be compared.
    everything = [row for rows in policies.values() for row in rows]
    unbounded = {name for row in everything for name, value in row.items() if not 0 <= value <= 1}

    def average(name: str, values: Sequence[float]) -> Estimate | None:
        return estimate_mean(values, clusters) if name in unbounded else estimate_fraction(values, clusters)

    return {
        policy: {name: average(name, [row[name] for row in rows]) for name in rows[0]}
        for policy, rows in policies.items()
    }


def measure_differences(first: Rows, second: Rows, prompts: Sequence[Prompt]) -> dict[str, Estimate]:
    """Compute the mean difference of each metric that both policies have, first minus second, paired by response."""
    clusters = [prompt.text for prompt in prompts]
    names = [name for name in first[0] if name in second[0]] if first and second else []
    found = {
        name: estimate_mean([a[name] - b[name] for a, b in zip(first, second, strict=True)], clusters) for name in names
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}
