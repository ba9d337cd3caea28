# Only this Python is used from outside; everything else happens in .venv. The constraints pin torch
# without naming a build: a machine with a GPU gets the CUDA one.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run check test gate slow bench clean

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
	for file in tasks/*/task.py; do $(BIN)/mypy $$file || exit; done

test: setup
	$(BIN)/pytest -n auto --dist loadfile

# The shipped models against the committed baseline. Seconds have a wide limit: CI shares its cores.
gate: setup
	$(BIN)/mdmbench check --max-rise seconds=100%

slow: setup
	$(BIN)/pytest -m slow

# The committed tables: a quarter of an hour on two cores; a stopped one is taken up again.
# TABLE=--no-seconds leaves the time out, for a machine that does other work meanwhile.
bench: setup
	for task in sudoku maze arithmetic; do \
	  $(BIN)/mdmbench run --config $$task --out results/runs/$$task > /dev/null && \
	  $(BIN)/mdmbench table $(TABLE) results/runs/$$task --format markdown > results/shipped/$$task.md && \
	  $(BIN)/mdmbench table $(TABLE) results/runs/$$task --format csv > results/shipped/$$task.csv && \
	  $(BIN)/mdmbench table results/runs/$$task --figure results/shipped/$$task.svg > /dev/null \
	  || exit; \
	done

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
