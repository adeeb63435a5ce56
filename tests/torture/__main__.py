"""Run all parts, or some: `python -m torture [--seed N] [--cases N] [PART ...]`, in the folder of the tests."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; children are forked, which threads do not survive
os.environ["TOKENIZERS_PARALLELISM"] = "false"

sys.path.insert(0, str(Path(__file__).parents[1]))

from torture.parts import PARTS


def main() -> None:
    """Print one line of counts for each part."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="number of cases of each part")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        part = PARTS[name]
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["RLAIF_CACHE"] = f"{folder}/cache"
            os.environ["RLAIF_PLUGINS"] = ""
            line = part.run(options.cases or part.cases, options.seed, Path(folder))
            os.chdir("/")
        print(f"{line} ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
