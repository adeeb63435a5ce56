"""`rlaif try` shows what the policies of a run answer from Python, with their rewards."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlaif_framework
from rlaif_framework import PluginManager, Prompt, Turn
from rlaif_framework.api.rewards import LoadedReward
from rlaif_framework.cli.interrupts import CODE
from rlaif_framework.data import hash_texts
from rlaif_plugins.tasks.tldr.task import TldrTask

RunCommand = Callable[..., tuple[int, str, str]]
PROMPT = "POST: my dog ate my shoes\nand I am sad\n\nTL;DR:"


def summarise(post: str) -> Prompt:
    """The prompt of the task for a post; the model has a chat template."""
    text = f"POST: {post}\n\nTL;DR:"
    instruction = f"Summarize the following text in one or two sentences.\n\n{post}"
    return Prompt(hash_texts(text), text, post, turns=(Turn("user", instruction),))


OWN = summarise("my dog ate my shoes\nand I am sad")


@pytest.fixture(autouse=True)
def _plugins(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is no installed plugin."""
    monkeypatch.setattr(PluginManager, "load", lambda **settings: manager)


class Terminal(io.StringIO):
    """Standard input of a terminal, at which lines are typed."""

    def isatty(self) -> bool:
        return True


def expect(run: Path, policy: str, prompt: str | Prompt = OWN, count: int = 1, **settings: Any) -> list[dict[str, Any]]:
    result = rlaif_framework.load_run(run)
    samples = result.policy(policy).sample([prompt] * count, **settings)
    texts = result.policy(policy).generate([prompt] * count, **settings)
    assert [sample.text for sample in samples] == texts
    scores = result.reward("rlaif").score(prompt, texts)
    return [
        {
            "policy": policy,
            "text": sample.text,
            "tokens": len(sample.ids),
            "finished": sample.finished,
            "rewards": {"rlaif": score},
        }
        for sample, score in zip(samples, scores, strict=True)
    ]


def test_a_prompt_is_answered_by_all_policies(run_folder: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("try", run_folder, "--prompt", PROMPT, "--json")
    assert code == 0, err
    expected = [*expect(run_folder, "sft"), *expect(run_folder, "rlaif")]
    found = json.loads(out)
    for row, other in zip(found, expected, strict=True):
        assert row.pop("rewards") == pytest.approx(other.pop("rewards"), abs=1e-6)  # batches of other shapes round
    assert found == expected
    assert expected[0]["text"] != expected[1]["text"]


def test_a_raw_prompt_is_sent_as_it_is(run_folder: Path, rlaif: RunCommand) -> None:
    argv = ("try", run_folder, "sft", "--prompt", "my dog ate it", "--json")
    formatted, raw = (json.loads(rlaif(*argv, *more)[1]) for more in ((), ("--raw",)))
    assert formatted == expect(run_folder, "sft", summarise("my dog ate it"))
    assert raw == expect(run_folder, "sft", "my dog ate it")
    assert formatted[0]["text"] != raw[0]["text"]


def test_a_text_that_makes_no_prompt_can_be_sent_raw(
    run_folder: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TldrTask, text: str) -> Prompt:
        raise rlaif_framework.DataError("no post")

    monkeypatch.setattr(TldrTask, "format_prompt", refuse)
    code, _, err = rlaif("try", run_folder, "sft", "--prompt", "x")
    assert (code, err) == (2, "rlaif: no post; with raw=True (--raw), the text is sent as it is\n")


def test_samples_have_a_seed_and_arms_can_be_chosen(run_folder: Path, rlaif: RunCommand) -> None:
    argv = ("try", run_folder, "rlaif", "--prompt", PROMPT, "--samples", 3, "--seed", 5)
    found = json.loads(rlaif(*argv, "--json")[1])
    assert found == expect(run_folder, "rlaif", count=3, temperature=1.0, seed=5)
    assert len({row["text"] for row in found}) > 1
    cold = json.loads(rlaif(*argv, "--temperature", 0, "--json")[1])
    assert len({row["text"] for row in cold}) == 1


def test_a_prompt_of_several_lines_comes_from_a_pipe_or_a_file(
    run_folder: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PROMPT}\n"))
    piped = rlaif("try", run_folder, "sft", "--json")[1]
    assert json.loads(piped) == expect(run_folder, "sft")
    (tmp_path / "prompt.txt").write_text(PROMPT)
    assert rlaif("try", run_folder, "sft", "--file", tmp_path / "prompt.txt", "--json")[1] == piped


def test_lines_typed_at_a_terminal_are_answered_until_the_end(
    run_folder: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"first\n\n{'word ' * 3}\n"))
    code, out, err = rlaif("try", run_folder, "sft")
    assert (code, err) == (0, "Type a prompt. Ctrl-D ends.\n")
    assert out.count("--- sft: ") == 2
    (own,) = expect(run_folder, "sft", summarise("first"))
    end = "EOS" if own["finished"] else "no EOS"
    assert f"--- sft: {own['tokens']} tokens, {end}, reward of rlaif {own['rewards']['rlaif']:.4g}" in out


def test_a_wide_terminal_shows_policies_side_by_side(
    run_folder: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    for width, is_wide in ((100, True), (60, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, err = rlaif("try", run_folder, "--prompt", PROMPT)
        assert (code, err) == (0, "")
        (first,) = (line for line in out.splitlines() if "sft: " in line)
        assert ("rlaif: " in first) == is_wide
        for (row,) in (expect(run_folder, "sft"), expect(run_folder, "rlaif")):
            assert all(word in out for word in row["text"].split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nope", "--prompt", "x"], "no arm named 'nope'; known: rlaif, sft."),
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "x", "--file", "y"], "give either --prompt or --file"),
        (["--file", "/nowhere"], "cannot read the prompt in /nowhere"),
        (["--file", "/dev/zero"], "it is a device"),
    ],
)
def test_mistakes_are_one_line(run_folder: Path, rlaif: RunCommand, argv: list[str], message: str) -> None:
    code, out, err = rlaif("try", run_folder, *argv)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_a_reward_that_cannot_score_is_named_and_the_response_is_shown(
    run_folder: Path, rlaif: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, prompt: Prompt, responses: object) -> list[float]:
        raise rlaif_framework.DataError("prompt 1 has no reference")

    monkeypatch.setattr(LoadedReward, "score", refuse)
    code, out, err = rlaif("try", run_folder, "rlaif", "--prompt", PROMPT)
    assert (code, err) == (0, "rlaif: the reward of rlaif could not score: prompt 1 has no reference\n")
    assert "--- rlaif: " in out
    assert "reward of" not in out


def test_ctrl_c_at_the_prompt_ends_without_a_message(run_folder: Path) -> None:
    """At a real terminal: the interrupt arrives while the command waits for a line."""
    terminal, line = pty.openpty()
    # The run names a labeler of the tests' own; the command needs its baseline only.
    argv = [sys.executable, "-c", STARTED, "try", str(run_folder), "sft"]
    process = subprocess.Popen(
        argv,
        stdin=line,
        stdout=line,
        stderr=line,
        start_new_session=True,
        # Whoever runs the tests in the background of a shell has them ignore Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(line)
    shown = b""
    while b"prompt> " not in shown:
        shown += os.read(terminal, 1024)
    # And a newline: an interrupt between the prompt and the wait for a line is only seen when a line has come.
    os.write(terminal, b"\x03\n")
    rest = b""
    try:
        while chunk := os.read(terminal, 1024):
            rest += chunk
    except OSError:  # the process has closed its end
        pass
    os.close(terminal)
    assert process.wait() == CODE
    assert b"interrupted" not in rest
    assert b"Traceback" not in rest


STARTED = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from rlaif_framework.cli.interrupts import handle_interrupts
handle_interrupts()
from rlaif_framework import PluginManager
from rlaif_framework.plugins.discovery import Plugin
sys.path.insert(0, "tests")
from support.oracle import oracle_module
found = PluginManager.load()
found.add(Plugin("oracle", "rlaif-test", "1.0", module=oracle_module()))
PluginManager.load = lambda **settings: found
from rlaif_framework.cli.main import main
main()
"""
"""The command at its own terminal, with the plugin of the tests."""
