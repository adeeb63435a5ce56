"""Settings that tasks share about the splits of their data."""

from __future__ import annotations


def check_fractions(validation: float, test: float) -> None:
    """Check that the fractions held out for validation and testing leave something to train on.

    Raises:
        ValueError: Their sum is 1 or more.
    """
    if validation + test >= 1:
        raise ValueError("validation_fraction and test_fraction leave nothing to train on: their sum must be below 1")
