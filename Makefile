# Only this Python is used from outside; everything else happens in .venv. The constraints pin torch
# without naming a build: a machine with a GPU gets the CUDA one.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run check test slow bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup
	$(BIN)/mdmbench run --sampler eb --gamma 0.1

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup
	$(BIN)/pytest

slow: setup
	$(BIN)/pytest -m slow

# The committed tables: half an hour on two cores; a stopped one is taken up again.
bench: setup
	$(BIN)/mdmbench run --config puzzles --out results/runs
	for task in sudoku maze; do \
	  for format in markdown csv json; do \
	    $(BIN)/mdmbench table results/runs/$$task-* --format $$format \
	      --figure results/puzzles/$$task.svg > results/puzzles/$$task.$$format 2>/dev/null || exit; \
	  done; \
	done

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
