"""Write the data of `specs/summeval.yaml`: news articles, and pairs of summaries with the preferences of experts.

python benchmarks/summeval.py SUMMEVAL OUT [--posts TLDR_PAIRS] [--margin 0.25]

SUMMEVAL is SummEval (Fabbri et al. 2021) with 100 articles of CNN/DailyMail and 16 summaries of each, rated by three
experts from 1 to 5. It is read in two forms: that of `mteb/summeval` on the Hugging Face Hub, or JSON Lines whose rows
have `source`, `references`, and `summaries` with `text` and `scores`. The quality of a summary is the mean of its
ratings for coherence, consistency, fluency and relevance. Two summaries of an article are a pair if their qualities
differ by the margin, and the better one is preferred.

The articles are divided by a hash of their ids: 60 are trained on, the pairs of 20 measure labelers, judges and reward
models, and 20 are test prompts. TLDR_PAIRS adds test prompts of another domain: pairs of summaries of Reddit posts, of
which the response that people preferred is the reference; posts without one are left out. No labels of either are
trained on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import load_dataset

AXES = ("coherence", "consistency", "fluency", "relevance")
SIZES = {"test": 20, "validation": 20}
"""Articles of the splits other than `train`."""


@dataclass(frozen=True)
class Article:
    """An article with its summaries."""

    id: str
    text: str
    references: Sequence[str]
    summaries: Sequence[tuple[str, float]]
    """Text and quality of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summeval", help="JSON Lines or Parquet file, or the hub id mteb/summeval")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--posts", type=Path, help="pairs of summaries of posts: prompt, response_a, response_b, label")
    parser.add_argument("--margin", type=float, default=0.25, help="least difference in quality of a pair")
    given = parser.parse_args()
    articles = sorted(read_articles(given.summeval), key=lambda article: sha256(article.id.encode()).digest())
    splits: dict[str, list[Article]] = {}
    for split, size in SIZES.items():
        splits[split], articles = articles[:size], articles[size:]
    splits["train"] = articles
    for split, found in splits.items():
        prompts = [{"id": a.id, "post": a.text, "summary": a.references[0]} for a in found]
        pairs = [pair for article in found for pair in make_pairs(article, given.margin)]
        if split == "test" and given.posts is not None:
            prompts += read_posts(given.posts)
        write(given.out / "posts" / f"{split}.jsonl", prompts)
        if split != "test":
            write(given.out / "pairs" / f"{split}.jsonl", pairs)


def read_articles(source: str) -> Iterator[Article]:
    """Read the articles of a file or a hub data set."""
    if Path(source).exists():
        kind = "parquet" if source.endswith(".parquet") else "json"
        rows = load_dataset(kind, data_files=source, split="train")
    else:
        rows = load_dataset(source, split="test")
    for row in rows:
        if "machine_summaries" in row:
            qualities = [fmean(scores) for scores in zip(*(row[axis] for axis in AXES), strict=True)]
            summaries = list(zip(row["machine_summaries"], qualities, strict=True))
            yield Article(row["id"], row["text"], row["human_summaries"], summaries)
        else:
            summaries = [(s["text"], fmean(s["scores"][axis] for axis in AXES)) for s in row["summaries"]]
            yield Article(row["id"], row["source"], row["references"], summaries)


def make_pairs(article: Article, margin: float) -> Iterator[dict[str, str]]:
    """Pair the summaries of an article whose qualities differ."""
    distinct = list({text: (text, quality) for text, quality in article.summaries}.values())
    for (a, (text, quality)), (b, (other, other_quality)) in combinations(enumerate(distinct), 2):
        if abs(quality - other_quality) >= margin:
            yield {
                "id": f"{article.id}/{a}-{b}",
                "post": article.text,
                "reference": article.references[0],
                "response_a": text,
                "response_b": other,
                "label": "a" if quality > other_quality else "b",
            }


def read_posts(path: Path) -> list[dict[str, str]]:
    """Read posts, each once, with the response that people preferred, if they preferred one."""
    found: dict[str, dict[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["label"] not in ("a", "b"):
            continue
        reference = row[f"response_{row['label']}"].strip()
        found.setdefault(row["prompt"], {"id": row["id"], "post": row["prompt"], "summary": reference})
    return list(found.values())


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines, and print their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labels = Counter(row["label"] for row in rows if "label" in row)
    print(f"{path}: {len(rows)} rows{''.join(f', {n} {label}' for label, n in sorted(labels.items()))}")


if __name__ == "__main__":
    main()
