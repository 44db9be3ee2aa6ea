# Two commands on a fresh machine with Python 3.10+ and make: `make demo`, `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo test check bench gpu faults clean

help:   ## what each target does
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 10

setup: $(READY)   ## make .venv with all that the other targets need (once; again when pyproject.toml changes)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is older than Python 3.10 · use: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup   ## train on 30 people of the ORL faces, verify on 10 others, in about a minute
	$(BIN)/python scripts/demo.py

test: setup   ## all tests but the long ones, on every processor
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist worksteal

check: setup   ## what CI runs: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

faults: setup   ## the long proofs: 200 kills, every kill point, 4,000 mutated inputs a parser (docs/reliability.md)
	$(BIN)/python -m pytest -m slow --timeout 3600

bench: setup   ## the benchmarks of docs/, one after the other in their short forms, with outside peers (extra: bench)
	$(BIN)/python -m pip install --quiet --editable '.[bench,faiss,parquet]'
	$(BIN)/python scripts/prepare_orl.py
	$(BIN)/python benchmarks/bench_loss.py --quick
	$(BIN)/python benchmarks/bench_train.py --quick
	$(BIN)/python benchmarks/train_memory.py --model sphere20
	$(BIN)/python benchmarks/bench_data.py --rounds 2
	$(BIN)/python benchmarks/bench_forms.py --workers 0 2 --rounds 2
	$(BIN)/python benchmarks/bench_disk.py --images 50000 --batches 20 --rounds 1
	$(BIN)/python benchmarks/bench_check.py data/orl-112x96/train
	$(BIN)/python benchmarks/bench_scale.py --repeats 2
	$(BIN)/python benchmarks/bench_embed.py data/orl-112x96/verify --count 100 --rounds 2
	$(BIN)/python benchmarks/bench_scaling.py
	$(BIN)/python benchmarks/bench_search.py --rounds 3
	$(BIN)/python benchmarks/bench_templates.py

gpu:   ## on a machine with a GPU: tests, step, loss, feed, demo within nine minutes (docs/gpu.md); no network
	@PYTHON="$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON))" bash benchmarks/gpu.sh

clean:   ## remove environment, caches and builds; data/ and runs/ stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
