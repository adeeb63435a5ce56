"""The fixtures for plugin authors: a tiny model, a tiny task, an isolated manager and a recorded backend."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Asked, Choose, Context, Generate, PluginError, PluginManager, Question, Stage, Task
from rlaif_framework.prompting import run_coroutines
from rlaif_framework.testing import (
    Interrupted,
    RecordedBackend,
    RecordedConfig,
    Recording,
    add_plugin,
    interrupt_after,
    save_tiny_model,
)
from rlaif_framework.testing.fixtures import (
    make_tiny_stage,
    plugin_manager,
    recorded_backend,
    tiny_context,
    tiny_model,
    tiny_task,
)
from support.fake_plugins import Site, labeler_code
from support.oracle import oracle_module

__all__ = ["make_tiny_stage", "plugin_manager", "recorded_backend", "tiny_context", "tiny_model", "tiny_task"]


def test_the_tiny_model_is_the_same_every_time(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = save_tiny_model(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before), "the global stream was used"
    other = save_tiny_model(tmp_path / "other", seed=1)
    assert (other / "model.safetensors").read_bytes() != (tiny_model / "model.safetensors").read_bytes()


def test_the_tiny_models_tokens_are_characters(tiny_model: Path, tiny_context: Context) -> None:
    tokenizer = tiny_context.load_policy_tokenizer(tiny_model)
    text = "Is it\n1 or 2?"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_the_isolated_manager_has_no_installed_plugin(site: Site, request: pytest.FixtureRequest) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    manager: PluginManager = request.getfixturevalue("plugin_manager")
    assert "acme/x" not in manager.names("labeler")
    assert "testing/tiny" in manager.names("task")
    assert "acme/x" in PluginManager.load().names("labeler")


def test_an_own_module_is_added_as_that_of_its_distribution(plugin_manager: PluginManager) -> None:
    with pytest.raises(PluginError, match="belongs to the distribution 'rlaif-test'"):
        add_plugin(plugin_manager, oracle_module(), "rlaif-other")
    add_plugin(plugin_manager, oracle_module(), "rlaif-test")
    assert "test/taste" in plugin_manager.names("reward")


def test_the_tiny_task_prefers_responses_with_a_reason(tiny_task: Task) -> None:
    for comparison in tiny_task.comparisons("train"):
        better = comparison.responses[0 if comparison.preference == 1 else 1]
        assert "because" in better


def test_recordings_come_before_the_rule(recorded_backend: RecordedBackend) -> None:
    question = Question("Summary 1 - it rained\nSummary 2 - because it rained", "Preferred Summary=")
    ((_, answer),) = recorded_backend.answer([Choose(question, ("1", "2"))])
    assert answer.probabilities == (0.25, 0.75)
    assert [request.question for request in recorded_backend.asked] == [question]
    recording = Recording(contains="it rained", options={"1": 3, "2": 1}, text="a b c")
    backend = RecordedBackend(RecordedConfig(recordings=[recording]))
    choice, text = (answer for _, answer in backend.answer([Choose(question, ("1", "2")), Generate(question, 2)]))
    assert (choice.probabilities, text.text, text.generated_tokens) == ((0.75, 0.25), "a b", 2)


def test_a_stage_can_be_interrupted_and_resumed(make_tiny_stage: Callable[[str], Stage]) -> None:
    stage = interrupt_after(make_tiny_stage("one"), 2)
    stage.log(1, {"loss": 1.0})
    with pytest.raises(Interrupted):
        stage.log(2, {"loss": 0.5})
    assert make_tiny_stage("one").folder == stage.folder
    assert make_tiny_stage("one").seed("x") == stage.seed("x")


def test_strategies_run_against_the_recorded_backend(recorded_backend: RecordedBackend, tmp_path: Path) -> None:
    def ask() -> Generator[Asked, Any, str]:
        answer = yield Generate(Question("Summary 1 - because"), 100)
        return str(answer.text)

    (outcome,) = run_coroutines([ask()], recorded_backend)
    assert outcome.value == "Response 1 is the better one, because it gives the reason.\n\nVerdict: 1"
