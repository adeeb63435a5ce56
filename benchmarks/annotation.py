"""`rlaif annotate`: the time to the next pair, the answers after 20 kills, and the coverage of the rule for stopping.

`python benchmarks/annotation.py` serves 10,000 pairs of long responses to two people at once. They send answers as the
page does, and the time from an answer to the next pair is that of the whole request: the answer is on the disk before.
In each of 20 rounds the server is killed with SIGKILL while answers are under way, and what was confirmed is looked for
in the file. Then the rule for stopping follows simulated answers. Exits with 1 if an answer is lost, two people got the
same pair, the 95th percentile is above 100 ms, or the coverage is significantly below 95 %.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
from scipy.stats import binomtest

from rlaif_framework.annotation.answers import AnswerFile
from rlaif_framework.annotation.stopping import follow_win_rate

PEOPLE = ("Ann", "Bob")
LIMIT_MS = 100.0
CHOICES = ("first", "second", "tie", "bad")
RATES = (0.5, 0.55, 0.7, 0.9)


@dataclass
class Tally:
    """What the server has confirmed, and how long it took."""

    confirmed: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def write_pairs(path: Path, count: int, words: int) -> Path:
    draw = random.Random(0)
    known = [f"word{number}" for number in range(2000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            texts = [" ".join(draw.choices(known, k=words)) for _ in range(2)]
            file.write(json.dumps({"prompt": f"question {number}", "responses": texts}) + "\n")
    return path


def start(pairs: Path, out: Path) -> tuple[subprocess.Popen[str], httpx2.Client]:
    command = [sys.executable, "-m", "rlaif_framework", "annotate", str(pairs), "--out", str(out), "--repeat", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"(http://\S+/)#token=(\S+)", process.stdout.readline())
    assert found, "the server did not start"
    headers = {"Authorization": f"Bearer {found[2]}"}
    return process, httpx2.Client(base_url=found[1], headers=headers, timeout=60)


def annotate(client: httpx2.Client, name: str, tally: Tally, until: int, process: subprocess.Popen[str] | None) -> None:
    """Answer until there are so many answers, or until the server is killed by this or the other person."""
    try:
        items = client.post("api/items", json={"annotator": name}).json()["items"]
        while process is not None or len(tally.seconds) < until:
            number = items[0]["id"]
            choice = CHOICES[number % len(CHOICES)]
            body = {"annotator": name, "assignment": number, "choice": choice, "seconds": 1.0}
            began = time.perf_counter()
            reply = client.post("api/answers", json={**body, "request": f"{name}-request-{number}"})
            items = reply.raise_for_status().json()["items"]
            tally.seconds.append(time.perf_counter() - began)
            tally.confirmed[number] = choice
            if process is not None and len(tally.confirmed) >= until:
                process.kill()
    except httpx2.TransportError:
        if process is None:
            raise


def serve_people(pairs: Path, out: Path, tally: Tally, until: int, kill: bool) -> None:
    process, client = start(pairs, out)
    try:
        victim = process if kill else None
        people = [threading.Thread(target=annotate, args=(client, name, tally, until, victim)) for name in PEOPLE]
        for person in people:
            person.start()
        for person in people:
            person.join()
    finally:
        process.kill()
        process.wait()


def measure_speed(pairs: Path, folder: Path, answers: int) -> float:
    tally = Tally()
    serve_people(pairs, folder / "speed.sqlite", tally, answers, kill=False)
    median, high = np.quantile(np.array(tally.seconds) * 1000, [0.5, 0.95])
    print(f"next pair after an answer, {len(tally.seconds)} answers: median {median:.1f} ms, 95 % within {high:.1f} ms")
    return float(high)


def measure_kills(pairs: Path, folder: Path, kills: int) -> tuple[int, int]:
    """Return the number of lost answers, and of pairs that two people were given."""
    out, tally, lost = folder / "kills.sqlite", Tally(), 0
    draw = random.Random(1)
    for _ in range(kills):
        serve_people(pairs, out, tally, len(tally.confirmed) + draw.randint(1, 40), kill=True)
        with AnswerFile.read(out) as file:
            kept: dict[int, str] = {answer.assignment.id: answer.choice for answer in file.read_answers()}
            given = Counter(x.item for x in file.read_assignments() if x.kind == "item")
        lost += sum(kept.get(number) != choice for number, choice in tally.confirmed.items())
        tally.confirmed = kept
    twice = sum(count > 1 for count in given.values())
    print(f"{kills} kills: {len(tally.confirmed)} answers kept, {lost} confirmed ones lost, {twice} pairs given twice")
    return lost, twice


def measure_coverage(simulations: int, length: int) -> bool:
    draw, fine = np.random.default_rng(0), True
    for rate in RATES:
        inside, decided, wrong = 0, 0, 0
        for _ in range(simulations):
            ties = draw.random(length) < 0.1
            values = np.where(ties, 0.5, draw.random(length) < (rate - 0.05) / 0.9)
            found = follow_win_rate(values.tolist())
            inside += found.low <= rate <= found.high
            decided += found.decided == "first"
            wrong += found.decided == "second"
        fine = fine and binomtest(inside, simulations, 0.95, alternative="less").pvalue > 0.01
        print(
            f"win rate {rate:.0%}, {length} answers: in all intervals in {inside / simulations:.1%} of {simulations} "
            f"simulations; decided for it in {decided / simulations:.0%}, against it in {wrong / simulations:.1%}"
        )
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--length", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_pairs(Path(folder) / "pairs.jsonl", given.pairs, given.words)
        high = measure_speed(pairs, Path(folder), given.answers)
        lost, twice = measure_kills(pairs, Path(folder), given.kills)
    covered = measure_coverage(given.simulations, given.length)
    if lost or twice or high > LIMIT_MS or not covered:
        raise SystemExit("failed: see above")


if __name__ == "__main__":
    main()
