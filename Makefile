# demo: a whole federation on real data. check: style, types, layers. test: check and fast tests. test-all: test and slow tests, as CI runs.
# bench, study: what pays, measured. soak: long hostile runs, outside CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export GOMP_SPINCOUNT := 1000
export TOKENIZERS_PARALLELISM := false

.PHONY: demo check test test-slow test-all bench soak study docs clean

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/tequio demo sentiment --out runs/demo

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/english.py

test: check
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

test-all: test test-slow

bench: $(VENV)/.dev
	for script in $(filter-out benchmarks/soak_%,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak_messages
	$(BIN)/python -m benchmarks.soak_kills --faults 100
	$(BIN)/python -m benchmarks.soak_port

study: $(VENV)/.dev
	$(BIN)/python -m benchmarks.study

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist runs
