# Bare `make` lists the targets.
PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)
PYTEST = $(PYTHON) -m pytest
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help dev test compatibility fast golden lint format types bench compare wheel quickstart model

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

dev:  ## make .venv with everything that tests and examples need
	python3 -m venv .venv
	.venv/bin/pip install -c constraints.txt -e '.[test]'

test:  ## every test
	$(PYTEST) -n $(WORKERS)

compatibility:  ## every test, then docs/compatibility.md from how they ended
	$(PYTEST) -n $(WORKERS) --junitxml=build/results.xml
	$(PYTHON) -m tests.compatibility build/results.xml

fast:  ## the tests that need no model of note, under a minute
	$(PYTEST) -n $(WORKERS) -m 'not slow' tests/unit tests/property tests/golden

golden:  ## rewrite the golden files; read the difference before you commit it
	$(PYTEST) tests/golden tests/families/test_table.py \
		tests/kernels/test_resources.py --update-golden

lint:  ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:  ## let ruff repair what it can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## mypy, strict
	$(PYTHON) -m mypy

bench:  ## run the benchmarks; docs/benchmarks.md holds figures
	$(PYTHON) benchmarks/bench_plan.py
	$(PYTHON) benchmarks/bench_storage.py
	$(PYTHON) benchmarks/bench_rows.py
	OMP_NUM_THREADS=1 $(PYTHON) -m peftc.cli.main bench --suite cpu -o build/bench --docs docs/benchmarks.md

compare:  ## train every spec of examples/specs alike; writes docs/methods-compared.md
	$(PYTHON) benchmarks/compare_methods.py

wheel:  ## build dist/*.whl
	$(PYTHON) -m pip wheel --no-deps -w dist .

quickstart:  ## compile, tune, save, merge and reload the example model
	$(PYTHON) examples/quickstart.py

model:  ## train the example model again (some minutes)
	$(PYTHON) examples/train_tiny_llama.py
