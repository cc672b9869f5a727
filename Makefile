# Every target makes .venv when it is missing: git, make and Python are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
JOBS ?= 2

.PHONY: study test test-all check format bench clean

study: $(READY)  ## The main job: which normalizer, and why.  Writes report.html.
	$(BIN)/anynorm study --report report.html

test: $(READY)  ## All tests but the slow ones.
	$(BIN)/pytest -n $(JOBS) -m "not slow"

test-all: $(READY)  ## All tests.
	$(BIN)/pytest -n $(JOBS)

check: $(READY)  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Speed, as ratios to torch measured side by side.
	$(BIN)/python -m benchmarks

# The mark is written last, so that an installation broken off half-way is begun again.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist src/*.egg-info
