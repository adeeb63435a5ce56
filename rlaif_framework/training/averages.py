"""Average metrics over batches and processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor


def average_total(accelerator: Accelerator, total: float) -> float:
    """Return the mean of a total over processes, such as of the number of tokens in a batch.

    Gradients are averaged over processes. Divided by this mean, sums of losses therefore give the gradient of the mean
    over the tokens of all processes, and not the mean of each process's own mean. All processes must call this.
    """
    if accelerator.num_processes == 1:
        return total
    value = torch.tensor(total, dtype=torch.float64, device=accelerator.device)
    return float(accelerator.reduce(value, reduction="mean"))


class MetricAverager:
    """Computes means of metrics over batches and processes."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, name: str, values: Tensor, count: float | None = None) -> None:
        """Add values of a metric.

        Args:
            name: Name of the metric.
            values: Values of any shape.
            count: Weight of their sum in the mean, if it is not the number of values.
        """
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0] += float(values.detach().double().sum())
        entry[1] += values.numel() if count is None else count

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the mean of each metric over all processes; 0 where the count is 0.

        All processes must call this. A process need not have added all metrics.
        """
        # A metric may apply to the responses of some processes only. In the same order on all of them.
        names = list(dict.fromkeys(gather_object(list(self._sums))))
        sums = [self._sums.get(name, [0.0, 0.0]) for name in names]
        # One reduction for all metrics: sums and counts, (metrics, 2).
        # In fp64, because standard deviations are computed from differences of these means.
        table = torch.tensor(sums, dtype=torch.float64, device=accelerator.device)
        table = accelerator.reduce(table, reduction="sum")
        return {name: float(row[0] / row[1]) if row[1] else 0.0 for name, row in zip(names, table, strict=True)}
