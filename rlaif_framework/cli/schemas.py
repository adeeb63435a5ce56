"""The JSON Schemas of specs, of the catalogue and of the rows that runs write, each with a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager

SCHEMAS: Mapping[str, str] = {
    "spec": "a spec, with the installed plugins",
    "catalogue": "an entry of the catalogue of plugins",
    "comparisons": "a row of comparisons.jsonl",
    "preferences": "a row of preferences.jsonl",
    "labels": "a row that `rlaif label` writes",
    "evaluation": "evaluation.json",
    "report": "report.json of a run",
    "label-report": "the JSON file beside the page of `rlaif label --report`",
    "family": "family.json",
}
"""What each schema describes."""


def build_schema(name: str, manager: PluginManager | None = None) -> dict[str, Any]:
    """Build a JSON Schema. Its `$id` has the version of the framework without the patch, which changes no schema.

    Args:
        name: One of `SCHEMAS`.
        manager: The components for the schema of specs.
    """
    from rlaif_framework.plugins.versions import framework_version
    from rlaif_framework.spec.schema import DIALECT, spec_schema

    version = ".".join(framework_version().split(".")[:2])
    built = spec_schema(manager) if manager is not None else _describe(name)
    head = {"$schema": DIALECT, "$id": f"urn:rlaif-framework:{version}:{name}"}
    return {**head, **built, "title": f"rlaif {name}", "description": SCHEMAS[name]}


def _describe(name: str) -> dict[str, Any]:
    from pydantic import TypeAdapter

    # Entries are written by people, without what is computed from them; all others by runs, which write every field.
    mode: Literal["validation", "serialization"] = "validation" if name == "catalogue" else "serialization"
    schema: dict[str, Any] = TypeAdapter(_find_model(name)).json_schema(mode=mode)
    # Counted in reports only, because it depends on interruptions.
    schema.get("$defs", {}).get("Evidence", {}).get("properties", {}).pop("unanswered", None)
    return schema


def _find_model(name: str) -> Any:
    """Return the model of the rows of a kind."""
    if name == "catalogue":
        from rlaif_registry.entry import Entry

        return Entry
    if name == "evaluation":
        from rlaif_framework.metrics.evaluation import Evaluation  # imports scipy

        return Evaluation
    if name == "family":
        from rlaif_framework.report.family_report import FamilyReport

        return FamilyReport
    if name == "report":
        from rlaif_framework.report.run_report import RunReport

        return RunReport
    if name == "label-report":
        from rlaif_framework.labelling.report_model import LabelReport

        return LabelReport
    if name == "labels":
        from rlaif_framework.labelling.rows import LabelRow

        return LabelRow
    from rlaif_framework.records.preferences import Comparison, Preference

    return Comparison if name == "comparisons" else Preference
