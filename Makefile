# Only this Python is used from outside; everything else happens in .venv. The constraints pin torch
# without naming a build: a machine with a GPU gets the CUDA one.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run check test gate slow bench speed clean

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

# What the harness itself costs: half an hour on two cores that do nothing else meanwhile. Of each
# output the last line is the JSON document, the rest the table.
TINY := --shape tiny-vocab126k
SPEED := puzzles slots vocabulary textbook early caches by-batch by-length by-vocabulary by-size
speed: $(SPEED:%=speed-%)
	$(BIN)/mdmbench bench --end-to-end --json | tail -n 1 > results/bench/end-to-end.json

speed-puzzles: ASK = --model sudoku --sampler all --batch-size 64 --rounds 3
speed-slots: ASK = --model sudoku --sampler eb --limit 500
speed-vocabulary: ASK = $(TINY) --sampler all --batch-size 1,8 --blocks 1 --rounds 3
speed-textbook: ASK = $(TINY) --sampler topk --k 8 --batch-size 1,16 --textbook
speed-early: ASK = $(TINY) --sampler topk --k 8 --batch-size 1,16 --textbook --answer 64
speed-caches: ASK = $(TINY) --sampler topk --k 8 --batch-size 1,8 --blocks 4 --cache none,prefix,dual,dkv,dllm
speed-by-batch: ASK = $(TINY) --sampler eb --grow batch=1,2,4,8,16 --rounds 3
speed-by-%: ASK = $(TINY) --sampler eb --batch-size 1 --grow $(*:by-%=%) --rounds 3

speed-%:
	$(BIN)/mdmbench bench $(ASK) --format markdown --json > results/bench/$*.tmp
	head -n -1 results/bench/$*.tmp > results/bench/$*.md
	tail -n 1 results/bench/$*.tmp > results/bench/$*.json
	rm results/bench/$*.tmp

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
