"""Model cards of the policies and rewards of a run: `README.md` in the form that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.data.mappings import YamlDumper
from rlaif_framework.data.paths import HUB_ID
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.card_file import CARD, is_edited, save_card
from rlaif_framework.report.cautions import Caution
from rlaif_framework.report.findings import check_labelers
from rlaif_framework.report.leaderboard import BASELINE, Leaderboard
from rlaif_framework.report.markdown import escape, make_table
from rlaif_framework.report.page import number, percent
from rlaif_framework.store import MANIFEST

MODEL = "config.json"
"""The file that every saved model has."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What is known about a run."""

    spec: Mapping[str, Any]
    """The resolved spec as plain JSON."""
    evaluation: Evaluation
    leaderboard: Leaderboard
    cautions: Sequence[Caution]
    environment: Mapping[str, Any]
    """Versions and hardware."""
    steps: Mapping[str, Mapping[str, float | int | str]]
    """The facts of each step by its name."""

    @property
    def versions(self) -> str:
        """The versions of Python and of packages as a sentence."""
        packages = ", ".join(f"{name} {version}" for name, version in (self.environment.get("packages") or {}).items())
        return f"Python {self.environment.get('python', '')}; {packages}."


def write_cards(folder: Path, facts: CardFacts) -> Iterator[Path]:
    """Write a card beside each model that a run has trained: the baseline, policies and reward models.

    Args:
        folder: The run folder. Links in it are not followed.
        facts: What the cards state.

    Yields:
        Cards that people have edited, which stay as they are.
    """
    for arm in facts.spec["arms"]:
        yield from write_card(folder, f"{arm}/policy", MODEL, _describe_policy(arm, facts))
        yield from write_card(folder, f"{arm}/reward", MODEL, _describe_reward(arm, facts))
    yield from write_card(folder, BASELINE, MODEL, _describe_policy(BASELINE, facts))


def write_card(folder: Path, name: str, content: str, lines: Iterator[str]) -> Iterator[Path]:
    """Write a card into the folder of an artefact, unless it lacks what the card describes.

    Args:
        folder: The run folder. Links in it are not followed.
        name: The name of the artefact's step.
        content: The file that the card describes; a direct reward, for example, has no model.
        lines: The card.

    Yields:
        The card, if people have edited it: it stays as it is.
    """
    place = folder / name
    inside = [place, *place.parents][: len(Path(name).parts)]
    is_linked = any(path.is_symlink() for path in inside)
    if is_linked or not (place / MANIFEST).is_file() or not (place / content).is_file():
        return
    if is_edited(place / CARD):
        yield place / CARD
    else:
        save_card(place / CARD, lines)


def _describe_policy(name: str, facts: CardFacts) -> Iterator[str]:
    spec, evaluation = facts.spec, facts.evaluation
    yield from _describe_metadata(facts, "text-generation")
    role = "Supervised baseline" if name == BASELINE else f"Policy of the arm {escape(name)}"
    yield f"\n# {escape(str(spec['name']))}: {escape(name)}\n"
    yield f"{role} of a run with rlaif-framework {facts.environment.get('rlaif_framework', '')}.\n"
    yield from _describe_training(facts, None if name == BASELINE else spec["arms"][name])
    rows = [
        [column.title, f"{cell.text} {cell.interval}".strip(), column.note]
        for column in facts.leaderboard.columns
        for cell in [column.cells.get(name)]
        if cell is not None and column.title != "time"
    ]
    if rows:
        yield f"\n## Evaluation\n\nOn {evaluation.prompts} test prompts; brackets are 95 % intervals.\n"
        yield from make_table(["metric", "value", "meaning"], rows)
    yield from _describe_cautions(name, facts)
    yield from _show_use(USE_POLICY)
    yield from _describe_provenance(facts)


def _describe_reward(arm: str, facts: CardFacts) -> Iterator[str]:
    yield from _describe_metadata(facts, "text-classification")
    yield f"\n# {escape(str(facts.spec['name']))}: reward of {escape(arm)}\n"
    yield f"Reward model of a run with rlaif-framework {facts.environment.get('rlaif_framework', '')}."
    yield "The better response has the higher score; differences of scores are log-odds of being preferred.\n"
    yield from _describe_training(facts, {**facts.spec["arms"][arm], "algorithm": None})
    reward = facts.evaluation.arms[arm].reward
    if reward is not None:
        rows = [
            ["accuracy against gold preferences", percent(reward.accuracy_gold)],
            ["accuracy against the labels", percent(reward.accuracy_labeler)],
            ["accuracy of always picking the longer response", percent(facts.evaluation.longer_is_better)],
            ["Brier score", number(reward.calibration.brier) if reward.calibration else "-"],
        ]
        yield f"\n## Evaluation\n\nOn {facts.evaluation.comparisons} held-out comparisons.\n"
        yield from make_table(["metric", "value"], rows)
    yield from _describe_cautions(arm, facts)
    yield from _show_use(USE_REWARD)
    yield from _describe_provenance(facts)


def _describe_metadata(facts: CardFacts, pipeline: str) -> Iterator[str]:
    """Describe the model for the Hub, which reads YAML at the top."""
    model = str(facts.spec["policy"]["model"])
    is_hub_id = "/" in model and not model.startswith(("/", ".", "~")) and HUB_ID.fullmatch(model)
    base = {"base_model": model} if is_hub_id else {}
    metadata = {**base, "library_name": "transformers", "pipeline_tag": pipeline, "tags": ["rlaif"]}
    yield f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---"


def _describe_training(facts: CardFacts, arm: Mapping[str, Any] | None) -> Iterator[str]:
    spec, parts = facts.spec, arm or {}
    feedback, reward, algorithm = (parts.get(key) or {} for key in ("feedback", "reward", "algorithm"))
    rows = [
        ["base model", spec["policy"]["model"]],
        ["task", spec["task"]["kind"]],
        ["supervised fine-tuning", "yes" if spec.get("sft") else "none"],
        ["labels", (feedback.get("labeler") or {}).get("kind")],
        ["reward", reward.get("kind")],
        ["algorithm", algorithm.get("kind")],
        ["seed", spec["seed"]],
    ]
    yield "## Training\n"
    yield from make_table(["part", "value"], [[name, str(value)] for name, value in rows if value is not None])


def _describe_cautions(name: str, facts: CardFacts) -> Iterator[str]:
    texts = [c.text for c in facts.cautions if name in c.about.split(" against ")]
    arm = facts.evaluation.arms.get(name)
    if arm is not None and arm.labeler not in (None, name):  # arms with the same labeler share its measurements
        texts = [c.text for c in check_labelers(facts.evaluation) if c.about == arm.labeler] + texts
    if texts:
        yield "\n## Limitations\n"
        yield from (f"- {escape(text)}" for text in texts)


USE_POLICY = """from transformers import pipeline

generate = pipeline("text-generation", model="PATH")
generate(PROMPT, return_full_text=False)  # a text, or a list of messages if the model has a chat template"""

USE_REWARD = """import rlaif_framework as rlaif

rlaif.load_reward("PATH").score([PROMPT], [RESPONSE])"""


def _show_use(code: str) -> Iterator[str]:
    yield f"\n## Use\n\nPATH is this folder.\n\n```python\n{code}\n```"


def _describe_provenance(facts: CardFacts) -> Iterator[str]:
    yield f"\n## Provenance\n\n{escape(facts.versions)}\n"
    yield from show_settings("Spec", facts.spec)


def show_settings(title: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of settings as YAML, which are folded under a title."""
    text = yaml.dump(dict(settings), Dumper=YamlDumper, sort_keys=False, allow_unicode=True)
    # A fence that no line of the settings can end.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"<details><summary>{title}</summary>\n\n{fence}yaml\n{text}{fence}\n\n</details>"
