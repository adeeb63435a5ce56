"""Checks of responses: what can be verified without a model, each as a reward, a labeler and a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlaif_framework import Component, hookimpl
from rlaif_plugins.checks.choice import Choice
from rlaif_plugins.checks.contains import Contains
from rlaif_plugins.checks.exact_match import ExactMatch
from rlaif_plugins.checks.json_valid import JsonValid
from rlaif_plugins.checks.length_range import LengthRange
from rlaif_plugins.checks.regex import Regex
from rlaif_plugins.checks.roles import Check, Role, offer

CHECKS: Mapping[str, type[Check]] = {
    "exact-match": ExactMatch,
    "contains": Contains,
    "choice": Choice,
    "regex": Regex,
    "json-valid": JsonValid,
    "length-range": LengthRange,
}


def _offer_all(role: Role) -> Iterable[Component]:
    for kind, check in CHECKS.items():
        yield offer(kind, check, role)


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer all checks."""
    return _offer_all("reward")


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer all checks."""
    return _offer_all("labeler")


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer all checks."""
    return _offer_all("metric")
