"""A few cases of each part; `make torture` runs many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture.parts import PARTS

RUN = """
import sys
from pathlib import Path
from torture.parts import PARTS
part = PARTS[sys.argv[1]]
print(part.run(part.few, int(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.parametrize("name", PARTS)
def test_a_few_cases(name: str, tmp_path: Path) -> None:
    # In a process of its own, since it forks and changes the current folder.
    tests = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]),
        "TOKENIZERS_PARALLELISM": "false",
    }
    argv = [sys.executable, "-c", RUN, name, "1", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.strip().splitlines()) == 1  # tokenizers prints empty lines before it, while it trains
