"""What a run's measurements say in words: what improved, what did not, and what to doubt."""

from __future__ import annotations

from typing import Any

Measured = dict[str, Any]


def rate(estimate: Measured | None) -> str:
    """A rate in per cent with its interval and count."""
    if estimate is None:
        return "not measured"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{100 * estimate['value']:.1f} % [{low:.1f}, {high:.1f}], n={estimate['count']}"


def summarise(evaluation: Measured) -> list[str]:
    """One line per finding."""
    lines, longer = [], evaluation["longer_is_better"]
    for name, labeler in evaluation["labelers"].items():
        if labeler["agreement"] is not None:
            bias = labeler["same_position"]
            biased = f"; prefers the same position in {rate(bias)} of pairs asked in both orders" if bias else ""
            lines.append(
                f"labeler {name}, {labeler['title']}, agrees with preferences known by {labeler['gold_source']}: "
                f"{rate(labeler['agreement'])}{biased}"
            )
    for arm, measured in evaluation["arms"].items():
        if measured["reward_gain"] is None:  # an arm without a reward
            continue
        accuracy = measured["accuracy_gold"] or measured["accuracy_labeler"]
        against = "known preferences" if measured["accuracy_gold"] else "the labeler's own labels"
        beside = f"; preferring the longer one: {rate(longer)}" if measured["accuracy_gold"] and longer else ""
        lines.append(f"reward model of {arm}: {rate(accuracy)} of held-out pairs right, against {against}{beside}")
        lines.append(_describe_gain(arm, measured))
    judge, own = (evaluation["labelers"]["judge"][key] for key in ("title", "agreement"))
    for win in evaluation["wins"]:
        names, adjusted = f"{win['first']} against {win['second']}", rate(win["length_adjusted"])
        lines.append(
            f"{names}: wins {rate(win['rate'])}, {win['ties']} ties; if responses were of one length, {adjusted}; by "
            f"the judge {judge}, whose own agreement is {rate(own)}"
        )
    return lines


def _describe_gain(arm: str, measured: Measured) -> str:
    gain = measured["reward_gain"]
    before, after = measured["reward_sft"]["value"], measured["reward_policy"]["value"]
    change = f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    if gain["low"] > 0:
        verdict = "it rose beyond its 95 % interval"
    elif gain["high"] < 0:
        verdict = "it FELL beyond its 95 % interval"
    else:
        verdict = "it did NOT rise beyond its 95 % interval"
    return f"held-out reward of {arm}: {before:.3f} (sft) to {after:.3f}, change {change}: {verdict}"


def find_warnings(evaluation: Measured, spec: Measured) -> list[str]:
    """What a reader should doubt before believing the numbers."""
    found = []
    used = {measured["labeler"] for measured in evaluation["arms"].values() if measured["labeler"]}
    for name in [*sorted(used), "judge"]:
        labeler = evaluation["labelers"][name]
        agreement = labeler["agreement"]
        if agreement is None:
            found.append(
                f"nothing is known about how good '{name}' is: the task has no comparisons with known preferences"
            )
        elif agreement["low"] <= 0.5:
            found.append(f"'{name}' agrees with the known preferences no better than chance: {rate(agreement)}")
    found += _compare_judge(evaluation, spec)
    if any(x["gold_source"] == "synthetic" for x in evaluation["labelers"].values()):
        found.append(
            "the preferences are known by construction (one response was written to be worse), not from human raters"
        )
    for win in evaluation["wins"]:
        names, adjusted = f"{win['first']} against {win['second']}", win["length_adjusted"]
        if win["rate"] and _side(win["rate"]) is None:
            found.append(f"{names}: the interval holds 50 %, nobody has won")
        elif adjusted and _side(adjusted) != _side(win["rate"]):
            found.append(f"{names}: the length of responses may have decided; adjusted for it, {rate(adjusted)}")
    for arm, measured in evaluation["arms"].items():
        found += _doubt_reward(arm, measured, evaluation["longer_is_better"])
        found += _watch_policy(arm, evaluation, spec)
    return found


def _side(estimate: Measured) -> bool | None:
    """Whether a win rate is above one half or below; None where its interval holds one half."""
    return None if estimate["low"] <= 0.5 <= estimate["high"] else estimate["value"] > 0.5


def _compare_judge(evaluation: Measured, spec: Measured) -> list[str]:
    judge = evaluation["judge"]
    found = []
    for arm, settings in spec["arms"].items():
        algorithm = {
            key: value for key, value in (settings.get("algorithm") or {}).items() if key != "checkpoint_selection"
        }
        labelers = [(settings.get("feedback") or {}).get("labeler"), *_labelers([settings.get("reward"), algorithm])]
        learned = [labeler for labeler in labelers if labeler is not None]
        shared = set().union(*map(_models, learned)) & _models(judge)
        if judge in learned:
            found.append(f"THE JUDGE IS THE LABELER of arm '{arm}': its win rates say nothing about quality")
        elif shared:
            names = ", ".join(sorted(shared))
            found.append(f"judge and labeler of arm '{arm}' share a model ({names}): they may share its errors")
    return found


def _labelers(value: Any) -> list[Any]:
    """The labelers in the slots of rewards and algorithms, however deep: a policy learns from them too."""
    if isinstance(value, list):
        return [labeler for nested in value for labeler in _labelers(nested)]
    if not isinstance(value, dict):
        return []
    own = [value["labeler"]] if isinstance(value.get("labeler"), dict) else []
    return own + [labeler for key, nested in value.items() if key != "labeler" for labeler in _labelers(nested)]


def _models(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return set()
    own = {value["model"]} if isinstance(value.get("model"), str) else set()
    return own.union(*(_models(nested) for nested in value.values()))


def _doubt_reward(arm: str, measured: Measured, longer: Measured | None) -> list[str]:
    accuracy = measured["accuracy_gold"]
    if accuracy is None or longer is None:
        return []
    best = max(longer["value"], 1 - longer["value"])
    if accuracy["value"] > best:
        return []
    which = "longer" if longer["value"] >= 0.5 else "shorter"
    return [f"the reward of '{arm}' is no better on held-out pairs than always preferring the {which} one ({best:.0%})"]


def _watch_policy(arm: str, evaluation: Measured, spec: Measured) -> list[str]:
    policies, found = evaluation["policies"], []
    policy, baseline = policies[arm], policies["sft"]
    if "copy_rate" in policy and policy["copy_rate"]["low"] > max(baseline["copy_rate"]["high"], 0.1):
        found.append(f"'{arm}' copies more from its source than the baseline: {policy['copy_rate']['value']:.0%} of it")
    if policy["tokens"]["value"] > 0.9 * spec["policy"]["max_new_tokens"]:
        found.append(f"the responses of '{arm}' run into the length limit")
    if policy["ended"]["value"] < 0.5:
        found.append(f"most responses of '{arm}' have no end token")
    return found
