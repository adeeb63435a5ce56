"""Measure responses with several metrics."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_framework.contracts.protocols import Metric
from rlaif_framework.errors import PluginError
from rlaif_framework.plugins.configs import MetricConfig
from rlaif_framework.records.preferences import Prompt


class ResponseMetrics:
    """Several metrics that measure the same responses.

    Args:
        metrics: Metrics with their configs. The numbers of all of them have different names.
    """

    def __init__(self, metrics: Sequence[tuple[MetricConfig, Metric]]) -> None:
        self._metrics = metrics

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[dict[str, float]]:
        """Measure the responses to prompts, pairwise.

        Returns:
            For each response, the numbers that apply to it, by name.

        Raises:
            PluginError: A metric returns other numbers than its config names.
        """
        rows: list[dict[str, float]] = [{} for _ in responses]
        for config, metric in self._metrics:
            found = metric.measure(prompts, responses)
            if set(found) != set(config.names):
                raise PluginError(
                    f"metric '{config.kind}': measure() returned {', '.join(found) or 'nothing'}, but the names of its "
                    f"config are {', '.join(config.names)}"
                )
            for name in config.names:
                for row, number in zip(rows, found[name], strict=True):
                    if number is not None:
                        row[name] = number
        return rows
