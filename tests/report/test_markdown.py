"""The first screen as Markdown: the same numbers, and hostile texts stay texts."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt

from rlaif_framework.report.verdict import write_verdict
from support.evaluations import EVALUATION, build_report, estimate, win
from support.pages import read_text

EVIL = "<img src=x> ![i](http://e/x.png) [l](http://e) | **b** `c` &lt; \n# h"


def render(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_the_file_has_verdict_leaderboard_and_warnings(tmp_path: Path) -> None:
    found = build_report(wins=[win(estimate(0.7), estimate(0.52))])
    found.write(tmp_path)
    page = render((tmp_path / "report.md").read_text(encoding="utf-8"))
    shown = read_text(page)
    assert all(sentence in shown for sentence in write_verdict(found.evaluation))
    assert "<td>70.0 % [65, 75] ▲</td>" in page
    assert f"<li>{found.warnings[0]}</li>" in page
    assert page.count("<table>") == 1


def test_hostile_texts_stay_texts_in_markdown() -> None:
    labelers = {name: {**x, "title": EVIL} for name, x in EVALUATION["labelers"].items()}
    found = build_report(labelers=labelers).model_copy(update={"warnings": [EVIL]})
    page = render(found.render_markdown())
    assert not any(tag in page for tag in ("<img", "<a ", "<strong", "<code", "<h1>h"))
    assert read_text(page).count(" ".join(EVIL.split())) == 2  # in the verdict and as a warning
