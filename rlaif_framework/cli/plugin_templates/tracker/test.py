from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rlaif_framework import Context, DataError, TrackedRun
from rlaif_framework.testing import TrackerConformance, send_events

from rlaif_acme import JsonlConfig, JsonlTracker


class TestJsonl(TrackerConformance):
    component = "acme/jsonl"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        return {"kind": self.component, "path": str(tmp_path / "log" / "runs.jsonl")}

    def test_a_row_is_written_for_each_event(self, context: Context, parsed: JsonlConfig, tracked: TrackedRun) -> None:
        send_events(JsonlTracker(parsed, context), tracked, None)
        rows = [json.loads(line) for line in parsed.path.read_text(encoding="utf-8").splitlines()]
        assert rows[0]["settings"]["name"] == "tiny"
        assert [row["number"] for row in rows if row.get("step") == "rlaif/policy"] == [1, 2, 3]
        assert rows[-2]["results"]["win_rate/rlaif-vs-sft"] == 0.6
        assert rows[-1]["finished"] is True

    def test_a_file_that_cannot_be_written_stops_the_run(
        self, context: Context, tracked: TrackedRun, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="change 'path'"):
            JsonlTracker(JsonlConfig(path=tmp_path), context).run_started(tracked)
