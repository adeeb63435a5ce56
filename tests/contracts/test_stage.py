"""What components log and count is converted and validated when they do so."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.console import Console

from rlaif_framework import PluginError, Stage
from rlaif_framework.contracts import read_metrics
from rlaif_framework.contracts.checked import check_returns
from rlaif_framework.progress import Progress


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stage(tmp_path: Path, printed: io.StringIO) -> Stage:
    progress = Progress(Console(file=printed))
    return Stage(
        "improve", tmp_path, tmp_path, 0, Accelerator(), progress, component="algorithm 'acme/x' of rlaif-acme 1"
    )


def test_metrics_of_numpy_and_torch_become_floats_for_the_log_and_the_hooks(stage: Stage) -> None:
    seen: list[Any] = []
    stage.report_step = lambda number, metrics: seen.append((number, metrics))
    stage.log(np.int64(1), {"loss": torch.tensor(0.5, requires_grad=True), "kl": np.float32(0.25), "n": 3})  # type: ignore[arg-type,dict-item]
    assert read_metrics(stage.folder) == [{"step": 1, "loss": 0.5, "kl": 0.25, "n": 3.0}]
    assert seen == [(1, {"loss": 0.5, "kl": 0.25, "n": 3.0})]
    assert {type(value) for value in seen[0][1].values()} == {float}


@pytest.mark.parametrize("metrics", [{"loss": None}, {"loss": "0.5"}, {"loss": torch.ones(2)}, {1: 0.5}, {"loss": {}}])
def test_a_metric_that_is_not_a_number_names_the_component_and_the_step(stage: Stage, metrics: Any) -> None:
    with pytest.raises(
        PluginError, match=r"^algorithm 'acme/x' of rlaif-acme 1: metric .* of step 3 is .*, not a number"
    ):
        stage.log(3, metrics)
    assert read_metrics(stage.folder) == []


def test_a_metric_that_is_not_finite_is_left_out_and_told_once(stage: Stage, printed: io.StringIO) -> None:
    for number in (1, 2):
        stage.log(number, {"loss": 0.5, "kl": math.nan, "ratio": torch.tensor(math.inf)})  # type: ignore[dict-item]
    assert read_metrics(stage.folder) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]
    lines = printed.getvalue().splitlines()
    assert lines == [
        f"warning: algorithm 'acme/x' of rlaif-acme 1: metric '{name}' of step 1 is {value}, and is left out of the log"
        for name, value in (("kl", "nan"), ("ratio", "inf"))
    ]


def test_facts_become_values_of_json_when_the_component_returns(stage: Stage) -> None:
    class Algorithm:
        def improve(self, initial: Any, guidance: Any, prompts: Any, stage: Stage) -> None:
            given: Any = {"kl": torch.tensor(0.5), "n": np.int64(3), "name": "x", "max": math.inf, "ok": True}
            stage.facts.update(given)

    check_returns(Algorithm, "algorithm", "algorithm 'acme/y' of rlaif-acme 2")().improve(None, None, [], stage)
    assert json.loads(json.dumps(stage.facts)) == {"kl": 0.5, "n": 3, "name": "x", "max": "inf", "ok": True}


def test_a_fact_of_another_kind_names_the_component(stage: Stage) -> None:
    class Model:
        def fit(self, labels: Any, initial: Any, stage: Stage) -> None:
            stage.facts["curve"] = [1.0, 2.0]  # type: ignore[assignment]

        def load(self, folder: Path) -> Any: ...

    with pytest.raises(PluginError, match=r"^reward 'acme/y' of rlaif-acme 2: fact 'curve' is \[1\.0, 2\.0\], neither"):
        check_returns(Model, "reward", "reward 'acme/y' of rlaif-acme 2")().fit([], None, stage)
