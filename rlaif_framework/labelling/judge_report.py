"""The content of a check of a judge, which `rlaif check-judge` prints and writes as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from rlaif_framework.data.row_files import is_read_with
from rlaif_framework.errors import SpecError
from rlaif_framework.files import check_name, read_json, write_atomic
from rlaif_framework.labelling.report_model import Table
from rlaif_framework.metrics.agreement import LabelerQuality
from rlaif_framework.metrics.calibration import LengthBin, ReliabilityBin
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.judge_bias import Verdict
from rlaif_framework.report.page import percent, rate

SHOWN = 5
"""Number of disagreements in the table; the JSON has all that are kept."""

EXCERPT = 60
"""Number of characters of a response in the table of disagreements."""


class ProbeResult(BaseModel):
    """The effect of a probe."""

    probe: str
    change: str
    """What was changed, as the end of a sentence that begins with "The response is"."""
    either: bool = False
    """True if a judge should not punish the change either."""
    effect: Estimate | None = None
    """Change of the win rate as a fraction, from -0.5 to 0.5, of which 0.1 are 10 points; None if not measured."""
    p: float | None = None
    """P-value of a cluster-robust t-test that the effect is 0."""
    p_holm: float | None = None
    """The p-value, adjusted for the number of probes by Holm's method."""
    verdict: Verdict | Literal["averaged out", "not measured"] = "not measured"
    """`averaged out`: single orders have this effect, but the labels average both orders."""
    reason: str | None = None
    """The reason if the effect was not measured."""
    wordings: dict[str, Estimate] = {}
    """The effect of each wording, on the pairs that had it."""
    slices: dict[str, Estimate] = {}
    """The effect in each slice."""


class Disagreement(BaseModel):
    """A pair on which the judge and people prefer different responses."""

    id: str
    prompt: str
    responses: tuple[str, str]
    certainty: float
    """The judge's probability of the response that it prefers, and people do not."""
    human: float
    """Probability that the first response is the better one, by people."""


class JudgeCheck(BaseModel):
    """Whether a labeler can be trusted as a judge. A notebook shows it."""

    labeler: str
    settings: dict[str, Any]
    """Settings of the labeler."""
    pairs: str
    """Name of the data."""
    prompts: int
    """Number of prompts that were used."""
    comparisons: int
    """Number of their pairs."""
    left_out: int
    """Number of pairs of other prompts, because of the limit."""
    ties: int
    """Number of pairs whose label is an exact tie."""
    tolerance: float
    """Largest effect that is accepted, as a fraction."""
    seed: int
    probes: list[ProbeResult]
    quality: LabelerQuality
    """Agreement with people, by slice too, and the share of pairs in which the same position was preferred in both
    orders, with what `rlaif label` measures besides."""
    kappa: Estimate | None
    """Cohen's kappa of the judge and people; None without pairs that people decided, or if all have one preference."""
    lengths: list[LengthBin]
    """Agreement by how many characters the response that people prefer is longer."""
    margins: list[ReliabilityBin]
    """Agreement by the judge's probability of the response that it prefers."""
    disagreements: list[Disagreement]
    """Those in which the judge is most certain, most certain first."""

    @property
    def biases(self) -> list[str]:
        """Names of the probes that found a bias beyond the tolerance."""
        return [result.probe for result in self.probes if result.verdict == "biased"]

    def describe(self) -> list[str]:
        """Return the findings as lines for a terminal."""
        quality = self.quality
        lines = [self._describe_verdict(), self._describe_pairs()]
        if self.ties == self.comparisons:
            lines.append("all labels are exact ties: a judge that prefers no response shows no bias")
        unclear = [result.probe for result in self.probes if result.verdict == "unclear"]
        if unclear:
            lines.append(f"too few pairs to exclude a larger effect than the tolerance: {', '.join(unclear)}")
        lines += [f"{x.probe}: not measured: {x.reason}" for x in self.probes if x.reason]
        if quality.agreement is None:
            lines.append("no pair has a human preference other than a tie: agreement and kappa are not measured")
        else:
            lines.append(
                f"agrees with people in {rate(quality.agreement)}; Cohen's kappa {_describe_kappa(self.kappa)}"
            )
        if quality.same_position:
            lines.append(f"prefers the same position in both orders in {rate(quality.same_position)}")
        if quality.unparsed and quality.unparsed.value:
            lines.append(f"answers that could not be read, left out: {rate(quality.unparsed)}")
        if quality.refused and quality.refused.value:
            lines.append(f"pairs that the backend refused to answer, left out: {rate(quality.refused)}")
        return lines

    def _describe_verdict(self) -> str:
        if self.biases:
            return f"biased by more than the tolerance of {100 * self.tolerance:g} points: {', '.join(self.biases)}"
        return f"no bias beyond the tolerance of {100 * self.tolerance:g} points was found"

    def _describe_pairs(self) -> str:
        left_out = f"; {self.left_out} pairs of other prompts were left out (--limit)" if self.left_out else ""
        return f"checked on {self.comparisons} pairs of {self.prompts} prompts{left_out}"

    def tables(self) -> Iterator[Table]:
        """Yield a table of the probes and, if people have judged the pairs, of slices and disagreements."""
        head = ("probe", "the response is", "n", "effect, points", "p, Holm", "verdict")
        yield head, [_probe_row(result) for result in self.probes]
        slices: list[tuple[str, ...]] = [*self._slice_rows()]
        if slices:
            yield ("slice", "agreement with people"), slices
        rows = [_disagreement_row(found) for found in self.disagreements[:SHOWN]]
        if rows:
            yield ("strongest disagreements", "certainty", "the judge prefers", "people prefer"), rows

    def _slice_rows(self) -> Iterator[tuple[str, str]]:
        for bin_ in self.lengths:
            yield f"better response longer by {bin_.low} to {bin_.high} characters", percent(bin_.agreement)
        for margin in self.margins:
            yield f"certainty {margin.low:.2f} to {margin.high:.2f}", percent(margin.accuracy)
        for name, agreement in self.quality.slices.items():
            yield name, percent(agreement)

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        from rlaif_framework.report.page import render_page

        return render_page(
            "cell.html.j2",
            title="Check of a judge",
            subtitle=f"{self.labeler}: {self.comparisons} pairs of {self.pairs}",
            summary=self.describe(),
            warnings=[],
            tables=list(self.tables()),
        )


def _points(estimate: Estimate) -> str:
    """Format an effect in points of the win rate: `+12.3 [8.1, 16.4]`."""
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _probe_row(result: ProbeResult) -> tuple[str, ...]:
    if result.effect is None:
        return (result.probe, result.change, "-", "-", "-", result.verdict)
    p = "-" if result.p_holm is None else f"{result.p_holm:.2g}"
    return (result.probe, result.change, str(result.effect.count), _points(result.effect), p, result.verdict)


def _disagreement_row(found: Disagreement) -> tuple[str, ...]:
    first, second = (text if len(text) <= EXCERPT else f"{text[:EXCERPT].rstrip()}..." for text in found.responses)
    judged, human = (second, first) if found.human > 0.5 else (first, second)
    return (found.id, f"{found.certainty:.2f}", judged, human)


def _describe_kappa(kappa: Estimate | None) -> str:
    if kappa is None:
        return "cannot be computed, since all preferences are of one kind"
    return f"{kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}]"


def check_out(out: Path, pairs: Path) -> None:
    """Check the name of the file for a check, that it replaces nothing but an earlier check, and that it is not in the
    folder of the pairs, with which it would be read.

    Raises:
        SpecError: Another name must be chosen.
    """
    if out.suffix != ".json":
        raise SpecError(f"--out {out}: its name must end in .json")
    check_name(out)
    if is_read_with(out, pairs):
        raise SpecError(f"--out {out}: the command reads all files in this folder; choose another folder")
    if out.exists() and not out.is_file():
        raise SpecError(f"--out {out} is not a file")
    found = read_json(out)
    if out.exists() and not (isinstance(found, dict) and found.keys() == JudgeCheck.model_fields.keys()):
        raise SpecError(f"--out {out}: the file already exists, and is not an earlier check; choose another name")


def write_check(check: JudgeCheck, out: Path) -> None:
    """Write a check as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, check.model_dump_json(indent=1))
