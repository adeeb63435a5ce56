"""The built-in components pass the conformance tests that plugins are given."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, PluginManager
from rlaif_framework.plugins.component import SLOTS, Slot
from rlaif_framework.plugins.own_code import OwnCode
from rlaif_framework.testing import (
    TINY_MODEL,
    AlgorithmConformance,
    BackendConformance,
    ComponentConformance,
    LabelerConformance,
    MetricConformance,
    RewardConformance,
    StrategyConformance,
    TaskConformance,
    TinyTask,
    TrackerConformance,
    load_manager,
)
from rlaif_framework.testing.tiny_task import NAMES, TinyTaskConfig
from support.server import Reply, Server
from support.token_server import VOCABULARY, TokenModel, give, probabilities, render, serve_tokens

CONFORMANCE: Mapping[Slot, type[ComponentConformance]] = {
    "task": TaskConformance,
    "backend": BackendConformance,
    "strategy": StrategyConformance,
    "labeler": LabelerConformance,
    "reward": RewardConformance,
    "algorithm": AlgorithmConformance,
    "metric": MetricConformance,
    "tracker": TrackerConformance,
}
"""The tests of each kind."""

MODEL = {"model": TINY_MODEL, "dtype": "fp32"}
READS = {"tolerance": 1e-4, "injection_tolerance": 0.5}
"""Of labelers whose own model reads the responses: rounding, and whatever a random model makes of another digit."""
SFT = {"lr": 0.02, "batch_size": 4, "epochs": 8}
TRAINED = {"kind": "bradley-terry", "lr": 3e-3, "epochs": 4, "batch_size": 4}


CHOICE = {"options": list(NAMES)}
"""The names in the notes of the tiny task, each of which names one."""


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def make_synthetic() -> list[Comparison]:
    task = TinyTask(TinyTaskConfig(), None)  # type: ignore[arg-type] # it needs no context
    return [replace(c, preference_source="synthetic") for c in task.comparisons("test")]


ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "backend transformers": {"config": MODEL},
    "strategy chain-of-thought": {"config": {"temperature": 0.7}},
    "strategy free-form": {"config": {"temperature": 0.7}},
    "strategy principles": {"config": {"mode": "average"}},
    "labeler ensemble": {"config": {"labelers": {"a": "length", "b": "rouge"}}},
    "labeler likelihood": {"config": MODEL, **READS},
    "labeler llm": {"config": {"backend": "testing/recorded"}},
    "labeler mix": {"config": {"labeler": "length", "proportion": 0.5}},
    "labeler choice": {"config": CHOICE},
    "reward choice": {"config": CHOICE},
    "metric choice": {"config": CHOICE},
    "labeler regex": {"config": {"pattern": "because"}},
    "labeler rate": {"config": {"backend": "testing/recorded"}},
    "labeler reference-likelihood": {"config": MODEL, **READS},
    "labeler similarity": {"config": {"model": TINY_MODEL}, **READS},
    "labeler synthetic": {"comparisons": make_synthetic()},
    "reward bradley-terry": {"config": {name: value for name, value in TRAINED.items() if name != "kind"}},
    "reward direct": {"config": {"labeler": "length"}},
    "reward ensemble": {"config": {"members": [TRAINED, "length"]}},
    "reward regex": {"config": {"pattern": "because"}},
    "metric regex": {"config": {"pattern": "because"}},
    "metric scored": {"config": {"labeler": "length"}},
    "reward sum": {"config": {"terms": {"length": "length", "rating": {"kind": "direct", "labeler": "rouge"}}}},
    "algorithm online-dpo": {"config": {"lr": 0.004}},
    "algorithm ppo": {"config": {"epochs": 2}},
    "algorithm best-of-n": {"config": {"n": 8}},
    "algorithm rejection-sampling": {"config": {"n": 8, "sft": SFT}},
    "algorithm teacher": {
        "config": {"backend": {"kind": "testing/recorded", "recordings": [{"contains": "", "text": "a"}]}, "sft": SFT}
    },
    "tracker tensorboard": {"uses_run_folder": True},
    "tracker wandb": {"pytestmark": needs("wandb")},
}
"""Settings of the components that need some, by kind and name. All others are tested with their defaults."""

FUNCTIONS = {"labeler function", "reward function", "metric function"}
OWN_CLASSES = {
    "backend openai",
    "task text",
    "task dialogue",
    "reward pretrained",
    "tracker mlflow",
    "tracker trackio",
    *FUNCTIONS,
}
"""Components whose settings need a fixture: they have classes below."""


def list_components() -> Iterator[tuple[Slot, str]]:
    manager = PluginManager.load_builtins()
    for slot in SLOTS:
        for name in manager.names(slot):
            yield slot, name


for _slot, _name in list_components():
    _title = f"{_slot} {_name}"
    if _title not in OWN_CLASSES:
        _class = "Test" + "".join(part.capitalize() for part in _title.replace("-", " ").split())
        globals()[_class] = type(
            _class,
            (CONFORMANCE[_slot],),
            {"component": _name, "__module__": __name__, **ATTRIBUTES.get(_title, {})},
        )


def test_the_table_names_built_in_components_only() -> None:
    assert set(ATTRIBUTES) | OWN_CLASSES <= {f"{slot} {name}" for slot, name in list_components()}


class SampledTokens(TokenModel):
    """A server that samples its text with the seed of the request."""

    def complete(self, body: dict[str, Any]) -> Reply:
        if not body.get("temperature"):
            return super().complete(body)
        known = probabilities(render(body))
        (token,) = random.Random(body["seed"]).choices(VOCABULARY, known)
        message = {"message": {"role": "assistant", "content": token}, "index": 0, "finish_reason": "length"}
        return give({"choices": [message], "usage": {"prompt_tokens": 10, "completion_tokens": 1}})


class TestBackendOpenai(BackendConformance):
    component = "openai"

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        with serve_tokens("vllm") as server:
            server.behave = SampledTokens(server)
            yield server

    @pytest.fixture
    def settings(self, server: Server) -> Mapping[str, Any]:
        return {"kind": "openai", "model": "any", "base_urls": [server.url], "concurrency": 4}


class TestTaskDialogue(TaskConformance):
    component = "dialogue"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        starts = [f"\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Eel number {n}?\n\nAssistant:" for n in range(60)]
        rows = [{"chosen": f"{s} Eels are fish {n}.", "rejected": f"{s} No."} for n, s in enumerate(starts)]
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"kind": "dialogue", "data": str(path)}


class TestTaskText(TaskConformance):
    component = "text"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        rows = [
            {"context": f"Eels are fish. There are {n}.", "question": "How many?", "answer": n, "wrong": n + 1}
            for n in range(60)
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {
            "kind": "text",
            "data": str(path),
            "prompt": "{{ context }}\n\nQ: {{ question }}\nA:",
            "reference": "{{ answer }}",
            "comparisons": {"fields": {"chosen": "answer", "rejected": "wrong"}, "gold_source": "synthetic"},
        }


class TestRewardPretrained(RewardConformance):
    component = "pretrained"

    @pytest.fixture
    def settings(self, tiny_model: Path, tmp_path: Path) -> Mapping[str, Any]:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(tmp_path / "score")
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "score")
        return {"kind": "pretrained", "model": str(tmp_path / "score"), "format": "text"}


@needs("mlflow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestTrackerMlflow(TrackerConformance):
    component = "mlflow"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        pytest.importorskip("sqlalchemy")  # which mlflow-skinny does not need
        return {"kind": "mlflow", "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}


@needs("trackio")
class TestTrackerTrackio(TrackerConformance):
    component = "trackio"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        return {"kind": "trackio", "project": tmp_path.name}


class Functions:
    """Settings of the components that call a function in a file, which the manager allows."""

    slot: Slot
    component = "function"

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "own.py").write_text(
            "def score(prompts, completions, **columns): return [len(c) for c in completions]"
        )
        return tmp_path / "own.py"

    @pytest.fixture
    def manager(self, file: Path) -> PluginManager:
        manager = load_manager()
        manager.code = OwnCode([str(file)])
        return manager

    @pytest.fixture
    def settings(self, file: Path) -> Mapping[str, Any]:
        return {"kind": "function", "target": f"{file}:score"}


class TestLabelerFunction(Functions, LabelerConformance): ...


class TestRewardFunction(Functions, RewardConformance): ...


class TestMetricFunction(Functions, MetricConformance): ...
