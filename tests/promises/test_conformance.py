"""The built-in components pass the conformance tests that plugins are given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from rlaif_framework import PluginManager
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.testing import (
    TINY_MODEL,
    AlgorithmConformance,
    BackendConformance,
    ComponentConformance,
    LabelerConformance,
    RewardConformance,
    StrategyConformance,
    TaskConformance,
)
from support.token_server import serve_tokens

CONFORMANCE: dict[str, type[ComponentConformance]] = {
    "task": TaskConformance,
    "backend": BackendConformance,
    "strategy": StrategyConformance,
    "labeler": LabelerConformance,
    "reward": RewardConformance,
    "algorithm": AlgorithmConformance,
}

LLM = {"kind": "llm", "backend": "testing/recorded"}
SFT = {"lr": 0.01, "batch_size": 8, "epochs": 4}
CASES: dict[str, dict[str, Any]] = {
    "labeler llm": {"config": {"backend": "testing/recorded"}},
}
