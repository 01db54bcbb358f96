# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export WANDB_SILENT ?= true

.DEFAULT_GOAL := help
.PHONY: help install fit test lint typecheck pytest test-slow bench-step bench-mixing clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## Make a virtual environment with pinned versions

$(BIN)/.installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

fit: install ## Train a small ViT with SMMix on handwritten digits, test it, print the table
	$(BIN)/lightning fit --config digits.yaml

test: install lint typecheck pytest ## Lint, format check, type check and tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: install
	$(BIN)/mypy

pytest: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m 'not slow'

test-slow: install ## The tests that take minutes
	$(BIN)/pytest -q -m slow

bench-step: install ## What a training step costs, by way of mixing (ARGS="--batch 8 --reference PATH")
	$(BIN)/python benchmarks/step.py $(ARGS)

bench-mixing: install ## What the mixing alone costs
	$(BIN)/python benchmarks/mixing.py $(ARGS)

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
