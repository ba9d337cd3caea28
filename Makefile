# Python and pip of the set-up; everything else happens in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run check test slow bench results clean

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

bench: setup
	$(BIN)/mdmbench run --config puzzles --out results/puzzles

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
