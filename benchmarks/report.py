"""The page of a large evaluation: its bytes, and the time to open, search, sort and scroll it in headless Chromium.

`PYTHONPATH=tests python benchmarks/report.py` builds the report of 10,000 test prompts with five arms, 15 matchups and
two judges. Each sample has texts of its own, in which words follow each other as in the posts and summaries of
tldr-mini.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

from rlaif_framework.report.run_report import RunReport
from support.browser import Browser
from support.evaluations import ARM, EVALUATION, POLICY, build_report, estimate, win

ARMS = ("rlaif", "direct", "best-of-8", "dpo", "grpo")
POLICIES = ("sft", *ARMS)
MATCHUPS = tuple(combinations(POLICIES, 2))
JUDGES = ("judge", "llm")
SUBREDDITS = ("relationships", "AskReddit", "tifu", "jobs")
PROMPT, RESPONSE = 1000, 150
"""Mean number of characters."""
NEXT_FRAME = "await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"


class Writer:
    """Write texts of words that follow each other in other texts, which gzip shrinks about as much as them."""

    def __init__(self, texts: Sequence[str], draw: random.Random) -> None:
        self.draw = draw
        self.starts: list[str] = []
        self.following: dict[str, list[str]] = {}
        for text in texts:
            words = re.findall(r"\S+\s*", text)
            self.starts.append(words[0])
            for word, following in pairwise(words):
                self.following.setdefault(word, []).append(following)

    def write(self, length: int) -> str:
        """Write about so many characters."""
        word, words, written = self.draw.choice(self.starts), [], 0
        while written < length:
            words.append(word if word[-1].isspace() else f"{word} ")
            written += len(words[-1])
            word = self.draw.choice(self.following.get(word, self.starts))
        return "".join(words).strip()


def write_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the rows of `samples.jsonl` of an evaluation."""
    lines = (files("rlaif_plugins.tasks.tldr") / "tldr_mini.jsonl").read_text(encoding="utf-8").splitlines()
    rows, draw = [json.loads(line) for line in lines], random.Random(seed)
    posts, summaries = (Writer([row[key] for row in rows], draw) for key in ("post", "summary"))
    for number in range(count):
        subreddit = draw.choice(SUBREDDITS)
        title, post = posts.write(50), posts.write(int(draw.gauss(PROMPT - 100, 200)))
        responses = {
            policy: {
                "text": summaries.write(int(draw.gauss(RESPONSE, 40))),
                "rewards": {arm: draw.gauss(0, 2) for arm in (ARMS if policy == "sft" else (policy,))},
                "metrics": {"tokens": draw.randint(20, 53), "eos_rate": float(draw.random() < 0.9)},
            }
            for policy in POLICIES
        }
        yield {
            "id": f"test-{number}",
            "prompt": f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:",
            "reference": summaries.write(RESPONSE),
            "groups": {"subreddit": subreddit},
            "responses": responses,
            "verdicts": [make_verdict(*matchup, judge, draw) for matchup, judge in product(MATCHUPS, JUDGES)],
        }


def make_verdict(first: str, second: str, judge: str, draw: random.Random) -> dict[str, Any]:
    orders = [draw.random(), draw.random()]
    names = {"first": first, "second": second, "judge": judge}
    return {**names, "probability": sum(orders) / 2, "orders": orders, "rationales": []}


def make_report() -> RunReport:
    """Return the report of an evaluation of these arms by these judges."""
    names = [{"first": first, "second": second, "judge": judge} for (first, second), judge in product(MATCHUPS, JUDGES)]
    return build_report(
        judges={"judge": {"kind": "rouge"}, "llm": {"kind": "llm"}},
        arms=dict.fromkeys(ARMS, ARM),
        policies=dict.fromkeys((*POLICIES, "reference"), POLICY),
        wins=[{**win(estimate(0.55), estimate(0.53)), **name} for name in names],
        labelers=EVALUATION["labelers"],
    )


def measure_change(browser: Browser, name: str, value: str) -> float:
    """Return the milliseconds from a change of a field of the filters until its frame is drawn."""
    field = f"document.querySelector('.filters').elements[{json.dumps(name)}]"
    return float(
        browser.evaluate(
            f"(async () => {{ const field = {field}; field.value = {json.dumps(value)};"
            f"const began = performance.now(); field.dispatchEvent(new Event('input', {{bubbles: true}})); {NEXT_FRAME}"
            "return performance.now() - began; })()"
        )
    )


def measure_scrolling(browser: Browser, element: str, step: int, frames: int = 300) -> tuple[float, float]:
    """Scroll an element by so many pixels each frame; return the median and the longest time between two frames, in
    milliseconds."""
    times = browser.evaluate(
        f"(async () => {{ const element = {element}; const times = []; let last = performance.now();"
        f"for (let i = 0; i < {frames}; i++) {{ element.scrollBy({{top: {step}, behavior: 'instant'}});"
        "await new Promise(requestAnimationFrame); times.push(performance.now() - last); last = performance.now(); }"
        "return times; })()"
    )
    return sorted(times)[len(times) // 2], max(times)


def open_page(browser: Browser, page: Path) -> float:
    """Open the page and return the seconds until the list of samples has rows."""
    browser.open(page)
    browser.wait("document.querySelector('#sample-browser .row')")
    return float(browser.evaluate("performance.now()")) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(write_rows(given.samples))
        began = time.perf_counter()
        page = Path(folder) / "report.html"
        page.write_text(make_report().render(rows), encoding="utf-8")
        built = time.perf_counter() - began
        print(f"{page.stat().st_size:,} bytes, built in {built:.1f} s")
        browser = Browser(Path(folder) / "profile")
        try:
            opened = [open_page(browser, page) for _ in range(given.repeats)]
            print(f"samples in the list after {', '.join(f'{seconds:.2f}' for seconds in opened)} s")
            print(browser.evaluate("document.querySelector('#sample-browser .status').textContent"))
            for name, value in (("q", "roommate"), ("q", "boss"), ("q", ""), ("sort", "first loses most")):
                print(f"{name} {value!r}: {measure_change(browser, name, value):.0f} ms")
            browser.evaluate("document.querySelector('#sample-browser').scrollIntoView({behavior: 'instant'})")
            median, longest = measure_scrolling(browser, "document.querySelector('.list')", 400)
            print(f"scrolling the list: a frame takes {median:.0f} ms, the longest {longest:.0f} ms")
            browser.evaluate("scrollTo({top: 0, behavior: 'instant'})")
            median, longest = measure_scrolling(browser, "document.scrollingElement", 40)
            print(f"scrolling the page: a frame takes {median:.0f} ms, the longest {longest:.0f} ms")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
