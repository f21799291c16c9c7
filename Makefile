# demo: a whole federation on real data. test: everything CI runs. check: style, types, layers. bench, study: what pays, measured. soak: faults and attacks, at length.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export GOMP_SPINCOUNT := 1000
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench study soak docs clean

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

test: check
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/.dev
	for script in $$(ls benchmarks/[a-z]*.py | grep -v /soak_); do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

study: $(VENV)/.dev
	$(BIN)/python -m benchmarks.study

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak_port

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist runs
