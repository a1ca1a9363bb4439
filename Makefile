# Everything a newcomer needs: `make demo` shows the library at work, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test test-all lint types contracts format docs site clean

help:
	@echo "make demo      install, then train on the embedded digits with 10 labels a class"
	@echo "make test      install, then lint, types, import contracts and the suite (under 10 minutes on 2 cores)"
	@echo "make test-all  the same with the long tests"
	@echo "make docs      regenerate the tables of docs/ from docs/results/"
	@echo "make site      the documentation with search and reference, in site/"

# Installed anew only when the project's dependencies change.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/tapetum demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

# What the tests train is so small that two threads would mostly wait for each other; two processes do not.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --durations=10 --numprocesses $(WORKERS) --dist loadfile
test test-all: export OMP_NUM_THREADS ?= 1

test: lint types contracts
	$(PYTEST)

test-all: lint types contracts
	$(PYTEST) -m 'slow or not slow'

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install
	$(BIN)/python docs/make_results.py

site: install
	$(BIN)/python docs/make_site.py

clean:
	rm -rf $(VENV) build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
