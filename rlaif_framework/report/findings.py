"""Describe the measurements of a run in sentences, and list reasons to doubt them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rlaif_framework.metrics.agreement import LabelerQuality
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Curve, Evaluation, MeasuredReward, PairedDifference
from rlaif_framework.records.ballots import LABEL_TOKEN_MASS, LOW_MASS
from rlaif_framework.report.cautions import Caution
from rlaif_framework.report.hacking import find_hacking
from rlaif_framework.report.page import metric_name, number, rate
from rlaif_framework.report.win_findings import MAX_UNREAD, check_wins, summarise_wins

SpecDict = dict[str, Any]
MAX_COPY_RATE = 0.1
"""Copy rates below this are not reported, even if the baseline copies less."""
MAX_EMPTY = 0.05
"""Share of empty responses above which it is reported."""
NEAR_LIMIT = 0.9
"""Share of `max_new_tokens` above which the mean length of responses is reported."""


def summarise(evaluation: Evaluation) -> list[str]:
    """Return one sentence for each finding: labelers, rewards, win rates."""
    lines = []
    for name, labeler in evaluation.labelers.items():
        quality = labeler.quality
        if quality.agreement is not None:
            bias = quality.same_position
            biased = f"; prefers the same position in {rate(bias)} of pairs shown in both orders" if bias else ""
            lines.append(
                f"labeler {name}, {labeler.title}, agrees with {quality.gold_source} gold preferences: "
                f"{rate(quality.agreement)}{biased}"
            )
        elif evaluation.gold_comparisons:
            lines.append(f"labeler {name}, {labeler.title}: {_explain_missing(quality, evaluation)}")
    for arm, measured in evaluation.arms.items():
        if measured.reward is not None:
            lines += _summarise_reward(arm, measured.reward, evaluation.longer_is_better)
    for policy in evaluation.policies:
        empty = _empty_rate(policy, evaluation)
        if empty is not None:
            lines.append(f"empty responses of {policy}: {rate(empty)}")
    lines += [_summarise_metric(name, evaluation) for name in evaluation.metrics]
    lines += summarise_wins(evaluation)
    lines += [_summarise_difference(difference) for difference in evaluation.differences if difference.metrics]
    return lines


def _summarise_reward(arm: str, reward: MeasuredReward, longer: Estimate | None) -> list[str]:
    accuracy = reward.accuracy_gold or reward.accuracy_labeler
    name = "reward model" if reward.accuracy_labeler else "reward"  # without labels it is not trained
    against = "gold preferences" if reward.accuracy_gold else "the labeler's own labels"
    baseline = f"; always picking the longer response: {rate(longer)}" if reward.accuracy_gold and longer else ""
    lines = []
    if accuracy is not None:
        lines.append(f"{name} of {arm}: accuracy on held-out pairs {rate(accuracy)}, against {against}{baseline}")
    gain, before, after = reward.gain, reward.sft, reward.policy
    if gain is not None and before is not None and after is not None:
        lines.append(
            f"held-out reward of {arm}: {before.value:.3f} (sft) to {after.value:.3f}, change {gain.value:+.3f} "
            f"[{gain.low:+.3f}, {gain.high:+.3f}]: {_judge_gain(gain)}"
        )
    return lines


def _summarise_metric(name: str, evaluation: Evaluation) -> str:
    """Compare the policies by a metric of the evaluation."""
    show = rate if name.endswith("_rate") else number
    found = (f"{policy} {show(metrics.get(name))}" for policy, metrics in evaluation.policies.items())
    return f"{metric_name(name)}: {'; '.join(found)}"


def _judge_gain(gain: Estimate) -> str:
    if gain.low > 0:
        return "a significant increase"
    if gain.high < 0:
        return "a significant DECREASE"
    return "NO significant increase (the 95 % interval includes 0)"


def _summarise_difference(difference: PairedDifference) -> str:
    changes = (
        f"{metric_name(name)} {x.value:+.3g} [{x.low:+.3g}, {x.high:+.3g}]" for name, x in difference.metrics.items()
    )
    return f"{difference.first} minus {difference.second}, paired by prompt: {', '.join(changes)}"


def find_cautions(evaluation: Evaluation, spec: SpecDict) -> list[Caution]:
    """Return reasons to doubt the numbers.

    Args:
        evaluation: The measurements.
        spec: The resolved spec as plain JSON.
    """
    found = check_labelers(evaluation) + _check_judge(evaluation, spec)
    found += check_wins(evaluation)
    for arm, measured in evaluation.arms.items():
        if measured.reward is not None:
            found += _check_reward(arm, measured.reward, evaluation.longer_is_better)
        found += [Caution("exploited reward", arm, text) for text in find_hacking(arm, evaluation)]
        found += _check_policy(arm, evaluation, spec)
        found += _check_reward_log(arm, measured.curve)
    for policy in evaluation.policies:
        empty = _empty_rate(policy, evaluation)
        if empty is not None:
            all_or_some = "all" if empty.value == 1 else f"{empty.value:.0%} of the"
            text = f"{all_or_some} responses of '{policy}' to the test prompts are empty"
            found.append(Caution("responses", policy, text))
    return found


def describe_unanswered(count: int) -> str:
    """Describe requests that may have been paid for in vain."""
    requests = "1 request" if count == 1 else f"{count:,} requests"
    return (
        f"sent {requests} without an answer, because a connection or the command was interrupted; the provider may "
        "have charged for them"
    )


def _empty_rate(policy: str, evaluation: Evaluation) -> Estimate | None:
    """Return the share of empty responses of a policy, if it is worth reporting."""
    empty = evaluation.policies[policy].get("empty_rate")
    return empty if empty is not None and empty.value > MAX_EMPTY else None


def _explain_missing(quality: LabelerQuality, evaluation: Evaluation) -> str:
    """Explain why a labeler has no agreement although there are gold preferences."""
    if quality.unparsed is None:
        return f"it can label none of the {evaluation.comparisons} validation comparisons, which lack what it needs"
    unparsed, labelled = quality.unparsed.value, quality.unparsed.count
    refused = quality.refused.value if quality.refused else 0.0
    return (
        f"no answer could be read as a label on the {labelled} validation comparisons (unparsed "
        f"{unparsed:.0%}, refused {refused:.0%}, the two orders disagree {max(0.0, 1 - unparsed - refused):.0%})"
    )


def check_labelers(evaluation: Evaluation) -> list[Caution]:
    """Find reasons to doubt the labelers of arms and the judges, each about a labeler by its name."""
    found = []
    used = {arm.labeler for arm in evaluation.arms.values() if arm.labeler}
    for name in dict.fromkeys([*sorted(used), *evaluation.judges]):
        quality = evaluation.labelers[name].quality
        agreement, unparsed = quality.agreement, quality.unparsed
        if agreement is None and evaluation.gold_comparisons:
            text = f"the quality of '{name}' is unknown: {_explain_missing(quality, evaluation)}"
            found.append(Caution("not measured", name, text))
        elif agreement is None:
            text = f"the quality of '{name}' is unknown: the validation split has no comparisons with gold preferences"
            found.append(Caution("not measured", name, text))
        elif not agreement.beats_chance:
            text = f"'{name}' agrees with the gold preferences not measurably better than chance: {rate(agreement)}"
            found.append(Caution("chance labels", name, text))
        if agreement is not None and unparsed is not None and unparsed.value > MAX_UNREAD:
            text = f"the answers of '{name}' could not be read on {rate(unparsed)} of the comparisons"
            found.append(Caution("unreadable", name, text))
        mass = evaluation.labelers[name].quality.label_token_mass
        if mass is not None and mass.value < LOW_MASS:
            found.append(Caution("unreadable", name, _describe_low_mass(f"'{name}'", mass.value)))
    if any(x.quality.gold_source == "synthetic" for x in evaluation.labelers.values()):
        text = "the gold preferences are synthetic (one response was written to be worse), not from human raters"
        found.append(Caution("gold", "", text))
    return found


def _describe_low_mass(owner: str, mass: float) -> str:
    return (
        f"{owner} mostly answers with something other than a label: the mean probability mass on the label tokens is "
        f"{mass:.2g}"
    )


def _check_reward_log(arm: str, curve: Curve) -> list[Caution]:
    """Find rewards during RL whose scores were read from tokens that the labeler's model rarely writes."""
    found = []
    for name in sorted({name for row in curve for name in row if name.endswith(f"/{LABEL_TOKEN_MASS}")}):
        # 0 stands for a mass that is unknown: a probability that is exactly 0 does not occur.
        masses = [row[name] for row in curve if row.get(name)]
        if masses and fmean(masses) < LOW_MASS:
            owner = "labeler" if name.startswith("labeler/") else "reward"
            text = _describe_low_mass(f"the {owner} of '{arm}' ({name})", fmean(masses))
            found.append(Caution("unreadable", arm, text))
    return found


def _check_judge(evaluation: Evaluation, spec: SpecDict) -> list[Caution]:
    """Compare each judge with every labeler that a policy learned from."""
    found = []
    for arm, settings in spec["arms"].items():
        # The policy does not learn from the judge of the checkpoint selection.
        algorithm = {k: v for k, v in (settings.get("algorithm") or {}).items() if k != "checkpoint_selection"}
        labelers = [(settings.get("feedback") or {}).get("labeler")]
        labelers += _find_labelers([settings.get("reward"), algorithm])
        learned_from = [labeler for labeler in labelers if labeler is not None]
        members = [member for labeler in learned_from for member in _find_members(labeler)]
        models = set().union(*map(list_models, learned_from))
        for name, judge in evaluation.judges.items():
            own = "" if name == "judge" else f" '{name}'"
            shared = models & list_models(judge)
            if judge in learned_from:
                text = f"THE JUDGE{own} IS THE LABELER of arm '{arm}': its win rates are not evidence of quality"
                found.append(Caution("judge is labeler", arm, text))
            elif judge in members:
                text = f"judge{own} is part of the labeler of arm '{arm}': its win rates are little evidence of quality"
                found.append(Caution("judge is labeler", arm, text))
            elif shared:  # another prompt or strategy, but the same model
                names = ", ".join(sorted(shared))
                text = f"judge{own} and labeler of arm '{arm}' share a model ({names}) and may share its errors"
                found.append(Caution("shared model", arm, text))
    return found


def _find_labelers(value: Any) -> list[Any]:
    """Find the labelers in the slots of rewards and algorithms, at any depth."""
    if isinstance(value, list):
        return [labeler for nested in value for labeler in _find_labelers(nested)]
    if not isinstance(value, dict):
        return []
    own = [value["labeler"]] if isinstance(value.get("labeler"), dict) else []
    return own + [x for key, nested in value.items() if key != "labeler" for x in _find_labelers(nested)]


def _find_members(labeler: Any) -> list[Any]:
    """Find the labelers that a labeler such as `ensemble` or `mix` is made of, at any depth."""
    inside = [labeler.get("labeler"), *(labeler.get("labelers") or {}).values()] if isinstance(labeler, dict) else []
    found = [member for member in inside if isinstance(member, dict)]
    return found + [nested for member in found for nested in _find_members(member)]


def list_models(value: Any) -> set[str]:
    """Return the names of all models in a config, as plain JSON."""
    if not isinstance(value, dict):
        return set()
    own = {value["model"]} if isinstance(value.get("model"), str) else set()
    return own.union(*(list_models(nested) for nested in value.values()))


def _check_reward(arm: str, reward: MeasuredReward, longer: Estimate | None) -> list[Caution]:
    accuracy = reward.accuracy_gold
    if accuracy is None or longer is None:
        return []
    best = max(longer.value, 1 - longer.value)  # of always picking the longer, or always the shorter response
    if accuracy.value > best:
        return []
    which = "longer" if longer.value >= 0.5 else "shorter"
    text = (
        f"the reward of '{arm}' is no more accurate on held-out pairs than always picking the {which} response "
        f"({best:.0%})"
    )
    return [Caution("weak reward", arm, text)]


def _check_policy(arm: str, evaluation: Evaluation, spec: SpecDict) -> list[Caution]:
    found: list[str] = []
    if arm not in evaluation.policies:  # it ends at its labels or its reward
        return []
    policy, baseline = evaluation.policies[arm], evaluation.policies["sft"]
    copied, copied_before = policy.get("copy_rate"), baseline.get("copy_rate")
    # Compares the ends of the two intervals, so that noise is not reported.
    if copied and copied_before and copied.low > max(copied_before.high, MAX_COPY_RATE):
        found.append(f"'{arm}' copies more from the source than the baseline: copy rate {copied.value:.0%}")
    tokens, eos_rate = policy.get("tokens"), policy.get("eos_rate")
    if tokens and tokens.value > NEAR_LIMIT * spec["policy"]["max_new_tokens"]:
        found.append(f"the responses of '{arm}' reach the length limit")
    if eos_rate and eos_rate.value < 0.5:
        found.append(f"most responses of '{arm}' have no end-of-sequence token")
    return [Caution("responses", arm, text) for text in found]
