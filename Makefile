# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export WANDB_SILENT ?= true

.DEFAULT_GOAL := help
.PHONY: help install fit eval compare test lint typecheck pytest test-slow clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## Make a virtual environment with pinned versions

$(BIN)/.installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

fit: install ## Train a small ViT with SMMix on handwritten digits, test it, print the table
	$(BIN)/lightning fit --config digits.yaml

CKPT ?= $(shell ls -t runs/digits/version_*/checkpoints/best.ckpt 2>/dev/null | head -n 1)

eval: install ## Evaluate the newest checkpoint of fit, or CKPT=FILE: all metrics, tables and pictures
	@test -n "$(CKPT)" || { echo "there is no checkpoint under runs/digits; run make fit first" >&2; exit 1; }
	$(BIN)/lightning test --config digits.yaml --config with/eval.yaml --ckpt_path "$(CKPT)" --verbose=false

compare: install ## Runs side by side: make compare RUNS="runs/digits/version_1 NAME=FOLDER"
	@test -n "$(RUNS)" || { echo 'name the folders of tested runs: make compare RUNS="FOLDER FOLDER"' >&2; exit 1; }
	$(BIN)/python -m smmix_pl.compare $(RUNS)

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

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
