"""Read the preferences of raters from columns with any values."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as short
from statistics import fmean
from typing import Any

from rlaif_framework.data import RowFault
from rlaif_plugins.tasks.text import Choice, ComparisonsConfig, plain_choice

CHOICES = {"first": 1.0, "second": 0.0, "tie": 0.5}
"""Probability that the first response is the better one."""

DEFAULTS: Mapping[str, Choice] = {"a": "first", "b": "second", "tie": "tie"}


def read_preference(config: ComparisonsConfig, values: Mapping[str, Any]) -> float | None:
    """Return the probability that the first response is better: the mean over the raters who have chosen.

    Raises:
        RowFault: A column is missing, or its value has no meaning.
    """
    columns = [config.preference] if isinstance(config.preference, str) else config.preference or []
    choices = [choice for column in columns if (choice := _read_choice(config, values, column)) is not None]
    return fmean(choices) if choices else None


def _read_choice(config: ComparisonsConfig, values: Mapping[str, Any], column: str) -> float | None:
    if column not in values:
        raise RowFault(
            f"the row has no column '{column}', which task.comparisons.preference names; it has {', '.join(values)}",
            kind=f"no column '{column}'",
        )
    value = values[column]
    if value is None or value == "" or value != value:  # NaN
        return None
    known = config.values or DEFAULTS
    choice = known.get(plain_choice(value))
    if choice is None and not config.values:
        choice = _read_probability(value)
    if choice is None:
        raise RowFault(
            f"'{column}' is {short(value)}, which is none of {', '.join(known)}"
            f"{'' if config.values else ' and no number between 0 and 1'}; name its meaning in task.comparisons.values",
            kind=f"'{column}' is not a choice",
        )
    return CHOICES[choice] if isinstance(choice, str) else choice


def _read_probability(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
