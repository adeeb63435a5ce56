"""Check a judge: label pairs and changed copies of them, and measure what the changes did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from rlaif_framework.assembly.context import Context
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs_file import Inspect, PairsFile
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.labelling.command import open_pairs
from rlaif_framework.labelling.job import LabelSettings
from rlaif_framework.labelling.judge_measures import (
    Orders,
    add_own_preference,
    averages_orders,
    decide_verdicts,
    find_disagreements,
    find_position_effects,
    find_probe_effects,
    observe_orders,
    summarise_effects,
)
from rlaif_framework.labelling.judge_pairs import PairNotes, choose_pairs
from rlaif_framework.labelling.judge_report import JudgeCheck, ProbeResult
from rlaif_framework.labelling.probes import OWN, POSITION, Probe, choose_probes
from rlaif_framework.metrics.agreement import Observation, measure_observations
from rlaif_framework.metrics.calibration import measure_calibration, measure_lengths
from rlaif_framework.metrics.judge_bias import measure_kappa
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.prompting.chunks import chunk_size
from rlaif_framework.records.preferences import Comparison, Preference

Key = tuple[Probe | None, int, int]
"""A probe, its round, and the index of the response that it changed."""

GIVEN: Key = (None, 0, 0)
"""The pairs as they are."""

BothOrders = tuple[Sequence[Comparison], Sequence[Comparison]]
"""Pairs, and the same pairs with their responses swapped."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(LabelSettings):
    """How a labeler is checked: the only one in `labelers`."""

    probes: Sequence[str] = ()
    """Names of the probes; none for all."""
    slice_column: str | None = None
    """The column to slice by; None for `slice`."""
    own: str = ""
    """Name of the labeler's model, for the probes `self` and `own`; empty if it is unknown."""
    limit: int = 200
    """Maximum number of prompts."""
    tolerance: float = 5.0
    """Largest effect that is accepted, in points of the win rate."""

    def check(self) -> None:
        """Check the limit and the tolerance.

        Raises:
            SpecError: One is not valid.
        """
        if self.limit < 1:
            raise SpecError(f"limit is {self.limit}; at least one prompt is needed")
        if not 0 < self.tolerance <= 50:  # false for NaN as well
            raise SpecError(f"tolerance is {self.tolerance:g}; it must be above 0 and at most 50 points")


def check_judge(
    settings: CheckSettings,
    scan: Callable[[Inspect], PairsFile],
    manager: PluginManager,
    progress: Progress,
    option: str = "--skip-invalid",
) -> JudgeCheck:
    """Label pairs and changed copies of them in both orders, and measure the effect of the changes.

    Nothing is kept but the answers of language models, in the cache: an interrupted check resumes with them.

    Args:
        settings: The labeler, and how it is checked.
        scan: Reads the pairs, and calls its argument with each of them.
        manager: Provides the components.
        progress: Where to print.
        option: How a user sets `skip_invalid`, for errors.

    Raises:
        RlaifError: Something that the user can fix. Everything is checked before the first pair is labelled.
    """
    settings.check()
    probes = choose_probes(settings.probes)
    notes = PairNotes(settings.slice_column)

    def scan_noting(inspect: Inspect) -> PairsFile:
        def note(row: Row, pair: PairRow, comparison: Comparison) -> None:
            inspect(row, pair, comparison)
            notes.add(row, pair, comparison)

        return scan(note)

    with open_pairs(settings, scan_noting, manager, progress, option) as (opened, file):
        notes.check()
        pairs = [notes.apply(pair) for pair in choose_pairs(file.read(), settings.limit, settings.seed)]
    (config,) = opened.labelers.values()
    plan = _plan(pairs, [probe for probe in probes if settings.own or not probe.needs_own], settings.own)
    _check_fields(config, plan)
    labels = _label(plan, config, opened.create_context(manager), progress)
    observations = [observe_orders(*found) for found in zip(pairs, labels[GIVEN], strict=True)]
    own = [notes.find_own(pair, settings.own) for pair in pairs] if settings.own else None
    results = [_measure(probe, plan, labels, observations, own) for probe in probes]
    calibration = measure_calibration(observations)
    return JudgeCheck(
        labeler=config.title,
        settings=config.model_dump(mode="json"),
        pairs=file.name,
        prompts=len({pair.prompt.text for pair in pairs}),
        comparisons=len(pairs),
        left_out=file.count - len(pairs),
        ties=sum(x.first == 0.5 for x in observations),
        tolerance=settings.tolerance / 100,
        seed=settings.seed,
        probes=decide_verdicts(results, settings.tolerance / 100, averages_orders(labels[GIVEN])),
        quality=measure_observations(observations),
        kappa=measure_kappa(observations),
        lengths=measure_lengths(observations),
        margins=calibration.bins if calibration else [],
        disagreements=find_disagreements(pairs, observations),
    )


def _plan(pairs: Sequence[Comparison], probes: Iterable[Probe], own: str) -> dict[Key, BothOrders]:
    """Make the pairs to label: as they are, and with either response changed by each probe; without gold labels."""
    blind = [replace(x, preference=None, preference_source=None, raw_responses=None) for x in pairs]
    plan: dict[Key, BothOrders] = {GIVEN: (blind, [pair.swap() for pair in blind])}
    for probe in probes:
        chosen = probe.choose(blind)
        for round_, index in product(probe.rounds, (0, 1)):
            # Changed after they are swapped, since a text may name its own position.
            swapped = probe.change_pairs([pair.swap() for pair in chosen], 1 - index, own, round_)
            plan[probe, round_, index] = probe.change_pairs(chosen, index, own, round_), swapped
    return plan


def _check_fields(config: LabelerConfig, plan: Mapping[Key, BothOrders]) -> None:
    """Check that a labeler can label pairs that nobody has judged.

    Raises:
        DataError: It cannot, such as one that copies human preferences.
    """
    for pairs, _ in plan.values():
        for pair in pairs:
            if (missing := config.missing_field(pair)) is not None:
                raise DataError(
                    f"labeler '{config.kind}' cannot be checked: it is asked about copies of the pairs without their "
                    f"labels, and such a pair {missing}"
                )


def _label(
    plan: Mapping[Key, BothOrders], config: LabelerConfig, context: Context, progress: Progress
) -> dict[Key, list[Orders]]:
    """Label all pairs of a plan in both orders.

    The copies of a pair are labelled together, since they share a prompt, which models then read once.
    """
    labeler, size = context.build_labeler(config), chunk_size(config)
    numbers = {pair.id: number for number, pair in enumerate(plan[GIVEN][0])}
    copies = [
        (numbers[pair.id], key, side, _rename(pair, key, side))
        for key, orders in plan.items()
        for side, pairs in enumerate(orders)
        for pair in pairs
    ]
    copies.sort(key=lambda copy: copy[0])  # stable: the pairs of each list stay in order
    batches = [copies[start : start + size] for start in range(0, len(copies), size)]
    found: dict[Key, tuple[list[Preference], list[Preference]]] = {key: ([], []) for key in plan}

    def ask() -> Iterator[None]:
        for batch in batches:
            preferences = labeler.label([pair for *_, pair in batch])
            for (_, key, side, _), preference in zip(batch, preferences, strict=True):
                found[key][side].append(preference)
            yield

    for _ in progress.track(ask(), len(batches), f"checking {config.kind}, {size} pairs at a time"):
        pass
    return {key: list(zip(*orders, strict=True)) for key, orders in found.items()}


def _rename(pair: Comparison, key: Key, side: int) -> Comparison:
    """Give a copy of a pair an id of its own; the pair as it is keeps its id, and is labelled as by `rlaif label`."""
    probe, *numbers = key
    if probe is None and side == 0:
        return pair
    return replace(pair, id="/".join(map(str, [pair.id, probe.name if probe else "", *numbers, side])))


def _measure(
    probe: Probe,
    plan: Mapping[Key, BothOrders],
    labels: Mapping[Key, Sequence[Orders]],
    observations: Sequence[Observation],
    own: Sequence[bool | None] | None,
) -> ProbeResult:
    """Measure a probe; `own` is None without the name of the labeler's model."""
    result = ProbeResult(probe=probe.name, change=probe.change, either=probe.either)
    if probe.needs_own and own is None:
        return result.model_copy(update={"reason": "needs the name of the labeler's model (--own)"})
    if probe.name == OWN:
        return add_own_preference(result, observations, own or ())
    if probe.name == POSITION:
        # Changed copies have a position too, and answers about them make the estimate more precise. Not those whose
        # texts name their position, so that the two orders differ in nothing else.
        keys = [key for key in plan if key[0] is None or not key[0].names_position]
        copies = (copy for key in keys for copy in zip(plan[key][0], labels[key], strict=True))
        return summarise_effects(result, find_position_effects(copies))
    effects = [
        effect
        for x in probe.rounds
        for effect in find_probe_effects(probe, x, plan[probe, x, 0][0], labels[probe, x, 0], labels[probe, x, 1])
    ]
    return summarise_effects(result, effects)
