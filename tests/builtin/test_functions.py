"""Functions of users as reward, labeler and metric: what they are given, and what is said if they fail."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Comparison, Context, PluginError, PluginManager, Prompt, RlaifError, SpecError, Turn
from rlaif_framework.contracts import read_measures
from rlaif_framework.plugins import OwnCode
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.slots import narrow
from support.world import World

PROMPTS = [Prompt("p0", "Q: 1+1?", "1+1", "2"), Prompt("p1", "Q: 2+2?", "2+2", "4", (Turn("user", "2+2"),))]
RESPONSES = ["2", "five"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a file of functions."""

    def write(code: str) -> Path:
        path = tmp_path / "my_rewards.py"
        path.write_text(textwrap.dedent(code))
        return path

    return write


def build(slot: Slot, target: object, task: object = "tldr", **settings: Any) -> Any:
    manager = PluginManager.load(code=OwnCode(allow_all=True))
    context = Context(narrow("task", task, manager), None, 0, manager)
    config = narrow(slot, {"kind": "function", "target": str(target), **settings}, manager)
    make: Any = {"reward": context.build_reward, "labeler": context.build_labeler, "metric": context.build_metric}[slot]
    return make(config)


def score(path: Path, function: str = "score", **settings: Any) -> list[float]:
    found: list[float] = build("reward", f"{path}:{function}", **settings).score(PROMPTS, RESPONSES)
    return found


SEEN = """
    seen = {}
    def score(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        return [0.0] * len(prompts)
"""


def test_a_function_is_given_texts_and_columns(write: Callable[[str], Path]) -> None:
    reward = build("reward", f"{write(SEEN)}:score", columns={"answer": "reference"})
    reward.score(PROMPTS, RESPONSES)
    seen = reward.function.function.__globals__["seen"]
    assert callable(seen.pop("log_metric"))
    assert callable(seen.pop("log_extra"))
    assert seen == {
        "prompts": ["Q: 1+1?", "Q: 2+2?"],
        "completions": ["2", "five"],
        "id": ["p0", "p1"],
        "source": ["1+1", "2+2"],
        "reference": ["2", "4"],
        "answer": ["2", "4"],
    }


def test_a_function_is_given_messages_if_asked_to(write: Callable[[str], Path]) -> None:
    reward = build("reward", f"{write(SEEN)}:score", conversational=True)
    reward.score(PROMPTS, RESPONSES)
    seen = reward.function.function.__globals__["seen"]
    # A prompt without turns is one user turn.
    assert seen["prompts"] == [[{"role": "user", "content": text}] for text in ("Q: 1+1?", "2+2")]
    assert seen["completions"] == [[{"role": "assistant", "content": text}] for text in RESPONSES]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def score(completions): return [len(c) for c in completions]", [1, 4]),
        ("def score(prompts, completions): return [len(p) for p in prompts]", [7, 7]),
        ("def score(completions, reference): return [c == r for c, r in zip(completions, reference)]", [1, 0]),
        ("def score(completions, *, reference, other=3): return [other] * 2", [3, 3]),
        ("async def score(completions, **kwargs): return [1.5, 2]", [1.5, 2]),
        ("import numpy\ndef score(completions): return numpy.array([0.5, 1])", [0.5, 1]),
        ("import torch\ndef score(completions): return torch.tensor([0.5, 1])", [0.5, 1]),
        ("class Score:\n    def __call__(self, completions): return [1, 2]\nscore = Score()", [1, 2]),
        ("from functools import partial\nscore = partial(lambda completions, x: [x, x], x=2)", [2, 2]),
        ("def score(completions): return [None, 1]", [0, 1]),
    ],
    ids=["completions", "prompts", "column", "default", "async", "numpy", "torch", "object", "partial", "none"],
)
def test_functions_of_every_form_are_called(write: Callable[[str], Path], code: str, expected: list[float]) -> None:
    path = write(code)
    found = score(path)
    assert found == expected
    assert all(type(value) is float for value in found)


def test_a_function_is_given_the_columns_that_the_task_lists(write: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [
        {"prompt": "1+1?", "solution": 2, "level": "easy", "tags": ["sum", None], "note": "x", "split": "test"},
        {"prompt": "2+2?", "solution": None, "level": "hard", "tags": [], "split": "test"},
    ]
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "text", "data": str(data), "columns": ["solution", "level", "tags"]}
    reward = build("reward", f"{write(SEEN)}:score", task, columns={"difficulty": "level"})
    manager = PluginManager.load()
    prompts = Context(narrow("task", task, manager), None, 0, manager).task.prompts("test")
    reward.score(prompts, RESPONSES)
    seen = reward.function.function.__globals__["seen"]
    assert seen["solution"] == [2, None]
    assert seen["level"] == seen["difficulty"] == ["easy", "hard"]
    assert seen["tags"] == [["sum", None], []]
    assert "note" not in seen
    with pytest.raises(PluginError, match="prompt 'p0' has no column 'solution'"):
        reward.score(PROMPTS, RESPONSES)


def test_a_column_that_no_prompt_has_is_an_error_before_anything_is_scored(write: Callable[[str], Path]) -> None:
    path = write("def score(completions, answer): ...")
    with pytest.raises(PluginError, match=r"columns: answer: prompts have no column 'solution'; they have id, source"):
        build("reward", f"{path}:score", columns={"answer": "solution"})


def test_an_async_function_keeps_its_event_loop_also_where_one_is_running(write: Callable[[str], Path]) -> None:
    import asyncio

    path = write("""
        import asyncio
        loops = []
        async def score(completions, **kwargs):
            loops.append(asyncio.get_running_loop())
            return [float(len(loops))] * len(completions)
    """)
    reward = build("reward", f"{path}:score")

    async def notebook() -> Any:
        return reward.score(PROMPTS, RESPONSES)

    assert asyncio.run(notebook()) == [1.0, 1.0]
    assert reward.score(PROMPTS, RESPONSES) == [2.0, 2.0]
    loops = reward.function.function.__globals__["loops"]
    assert loops[0] is loops[1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "my_rewards.py: no function named 'score'; known: none."),
        ("score = 1", "my_rewards.py: no function named 'score'"),
        ("def scroe(completions): ...", "no function named 'score'; did you mean 'scroe'?"),
        ("def score(completions): return [1]", "my_rewards.py:score: returned 1 scores for 2 completions"),
        ("def score(completions): return [1] * 3", "returned 3 scores for 2 completions"),
        ("def score(completions): return None", "returned None instead of 2 scores for 2 completions"),
        ("def score(completions): return 0.5", "returned 0.5 instead of 2 scores"),
        ("def score(completions): return [1, float('nan')]", "the score of a response to prompt 'p1' is nan, not a"),
        ("def score(completions): return ['a', 1]", "to prompt 'p0' is 'a', not a finite number or None: '2'"),
        ("def score(completions): return [1, [2]]", "to prompt 'p1' is [2], not a finite number or None: 'five'"),
        ("def score(completions):\n    return 1 / 0", "failed: ZeroDivisionError: division by zero ({file}, line 2)"),
        ("def score(completions):\n    raise SystemExit(3)", "failed: SystemExit: 3 ({file}, line 2)"),
        ("async def score(completions):\n\n    {}['a']", "failed: KeyError: 'a' ({file}, line 3)"),
        (
            "def score(completions, ground_truth): ...",
            "takes 'ground_truth': prompts have no such column; they have id, source, reference; task",
        ),
        ("def score(completions, ground_truth): ...", "To rename one, set columns: {ground_truth: reference}"),
        ("def score(completions, trainer_state): ...", "a score must not depend on the progress of training"),
        ("def score(completions, /): ...", "takes 'completions'"),
        ("def score(:", "my_rewards.py cannot be loaded: SyntaxError: invalid syntax (my_rewards.py, line 1)"),
        (
            "\nimport nothing_like_this",
            "cannot be loaded: ModuleNotFoundError: No module named 'nothing_like_this' ({fi",
        ),
        ("raise ValueError('odd')", "cannot be loaded: ValueError: odd ({file}, line 1)"),
    ],
)
def test_what_is_wrong_is_said_with_the_line_of_the_users_code(
    write: Callable[[str], Path], code: str, message: str
) -> None:
    path = write(code)
    with pytest.raises(RlaifError) as caught:
        score(path)
    assert message.replace("{file}", str(path)).replace("({fi", f"({path}") in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("score", "'score' is not FILE.py:FUNCTION, such as my_rewards.py:score, or PACKAGE.MODULE:FUNCTION"),
        ("x.py:", "is not FILE.py:FUNCTION"),
        ("x.py:a.b", "is not FILE.py:FUNCTION"),
        ("x/y:score", "'x/y' is neither the name of a Python file nor that of a module"),
    ],
)
def test_a_target_of_another_form_is_an_error_in_the_spec(target: str, message: str, manager: PluginManager) -> None:
    with pytest.raises(ValueError, match=message):
        narrow("reward", {"kind": "function", "target": target}, manager)


def test_a_missing_file_or_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"there is no file {tmp_path / 'none.py'}"):
        build("reward", f"{tmp_path / 'none.py'}:score")
    with pytest.raises(PluginError, match="cannot import no_such_module: ModuleNotFoundError"):
        build("reward", "no_such_module:score")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(SpecError, match="a folder, not a regular file"):
        build("reward", f"{tmp_path / 'folder.py'}:score")


def test_a_function_of_an_installed_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_scores.py").write_text("def score(completions): return [7] * len(completions)")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build("reward", "acme_scores:score").score(PROMPTS, RESPONSES) == [7.0, 7.0]


def test_a_labeler_prefers_the_higher_score(write: Callable[[str], Path]) -> None:
    path = write("def score(completions): return [None if c == '?' else len(c) for c in completions]")
    texts = [("aaa", "a"), ("a", "aaa"), ("b", "a"), ("?", "a")]
    pairs = [Comparison(str(i), PROMPTS[0], pair) for i, pair in enumerate(texts)]
    found = list(build("labeler", f"{path}:score").label(pairs))
    assert [p.probabilities for p in found] == [(1, 0), (0, 1), (0.5, 0.5), None]
    assert found[0].evidence.scores == (3.0, 1.0)
    (soft, *_) = build("labeler", f"{path}:score", scale=2).label(pairs)
    assert soft.probabilities == pytest.approx((0.7311, 0.2689), abs=1e-4)
    assert build("labeler", f"{path}:score").score(PROMPTS, RESPONSES) == [1.0, 4.0]


def test_a_metric_is_named_after_its_function_and_may_not_apply(write: Callable[[str], Path]) -> None:
    path = write("def spelling(completions): return [None, 0.5]")
    assert build("metric", f"{path}:spelling").measure(PROMPTS, RESPONSES) == {"spelling": [None, 0.5]}
    assert build("metric", f"{path}:spelling", name="words_known").measure(PROMPTS, RESPONSES) == {
        "words_known": [None, 0.5]
    }
    assert build("metric", f"{path}:spelling").measure([], []) == {"spelling": []}


def test_what_a_reward_function_logs_is_measured(write: Callable[[str], Path], world: World) -> None:
    path = write("""
        def score(completions, log_metric, log_extra, **kwargs):
            log_metric("short", 0.25)
            log_extra("seen", completions)
            return [1.0] * len(completions)
    """)
    reward = build("reward", f"{path}:score")
    stage = world.stage("reward")
    reward.fit([], Path(), stage)
    loaded = reward.load(stage.folder)
    assert loaded.score(PROMPTS, RESPONSES) == [1.0, 1.0]
    assert read_measures(loaded) == {"short": [0.25]}


def test_tokens_are_those_of_the_policy(write: Callable[[str], Path], world: World) -> None:
    path = write("def score(completion_ids, **kwargs): return [len(ids) for ids in completion_ids]")
    context = world.stage("tokens").context
    context.manager.code.allow_all = True
    config = narrow("reward", {"kind": "function", "target": f"{path}:score"}, context.manager)
    found = context.build_reward(config).load(Path()).score(PROMPTS, ["a b", "the dog ate it"])
    tokenizer = context.load_policy_tokenizer(context.policy_source)
    assert found == [len(tokenizer(text).input_ids) for text in ("a b", "the dog ate it")]
    with pytest.raises(SpecError, match="needs a policy"):
        score(path)
