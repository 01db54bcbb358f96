# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export WANDB_SILENT ?= true

# The published results table, a target a row. DATA=DIR holds the data set; a run goes on where it
# stopped, on whatever devices there are. VARIANT=reduced is the variant that was published;
# SEEDS="0 1 2"; SMOKE=1 takes generated data and a few steps.
BENCHES := $(addprefix bench-,cifar100 cifar100-occlusion cifar100-ece cars aircraft cub imagenet)
SPEEDS := $(addprefix bench-,step mixing mixers backbones loading evaluation)

.DEFAULT_GOAL := help
.PHONY: help install fit eval compare report demo-mixing dashboard test lint typecheck pytest test-slow
.PHONY: test-reliability clean
.PHONY: bench-motivation bench-gpu bench-table evidence $(BENCHES) $(SPEEDS)

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-26s %s\n", $$1, $$2}'

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
	$(BIN)/python -m smmix_pl.reporting.comparison $(RUNS)

# The newest run that trained; a test alone has no checkpoints
NEWEST = $(patsubst %/checkpoints,%,$(shell ls -td runs/digits/version_*/checkpoints 2>/dev/null | head -n 1))
RUNS_OR_NEWEST = $(or $(RUNS),$(NEWEST))

report: install ## One HTML file of one run or several: make report RUNS="FOLDER NAME=FOLDER" OUT=report.html
	@test -n "$(RUNS_OR_NEWEST)" || { echo "there is no run under runs/digits; name folders: make report RUNS=FOLDER" >&2; exit 1; }
	$(BIN)/python -m smmix_pl.reporting.html_report $(RUNS_OR_NEWEST) --output $(or $(OUT),report.html)

dashboard: install ## A W&B workspace and a report: make dashboard PROJECT=ENTITY/PROJECT
	@test -n "$(PROJECT)" || { echo "name a W&B project: make dashboard PROJECT=ENTITY/PROJECT" >&2; exit 1; }
	$(BIN)/python -m smmix_pl.reporting.wandb_dashboard "$(PROJECT)"

demo-mixing: install ## SMMix, CutMix and Mixup on your images: make demo-mixing IMAGES=FOLDER CKPT=FILE OUT=mixing.png
	@test -n "$(IMAGES)" || { echo "name a folder of images: make demo-mixing IMAGES=FOLDER" >&2; exit 1; }
	@test -n "$(CKPT)" || { echo "there is no checkpoint under runs/digits; run make fit first, or give CKPT=FILE" >&2; exit 1; }
	$(BIN)/python -m smmix_pl.cli.demo '$(IMAGES)' --checkpoint '$(CKPT)' --output $(or $(OUT),mixing.png)

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

test-reliability: install ## Resume, kills, preemption, ranks and long runs, at length: memory, files, processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow \
		$(addprefix tests/test_,resume.py killed.py preemption.py ranks.py long_run.py)

bench-cifar100: ## CIFAR-100, DeiT-S: top-1, published 79.84   (DATA=DIR, or SMOKE=1)
bench-cifar100-occlusion: ## CIFAR-100, ViT-S: occlusion, published 79.32 at 0%
bench-cifar100-ece: ## CIFAR-100, ViT-L: ECE, published 7.70
bench-cars: ## Stanford Cars, ViT-B: top-1, published 91.93
bench-aircraft: ## FGVC-Aircraft, ViT-B: top-1, published 78.40
bench-cub: ## CUB-200, ViT-B: top-1, published 88.35
bench-imagenet: ## ImageNet-1k, DeiT-S: top-1, occlusion and ECE, published 79.36, 79.32, 6.53
$(BENCHES): bench-%: install
	$(BIN)/python benchmarks/reproduce.py $* $(if $(SMOKE),--smoke,--data '$(DATA)') \
		$(if $(VARIANT),--variant $(VARIANT)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

evidence: install ## SMMix, its peers and its parts at one schedule   (SET=digits, or SET=cifar10_small DATA=DIR, cifar10_few, cifar10)
	$(BIN)/python benchmarks/evidence.py $(or $(SET),digits) $(if $(DATA),--data '$(DATA)') \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

bench-step: ## A training step by way of mixing, CPU or GPU   (ARGS="--precision bf16 --compile --reference PATH")
bench-mixing: ## The mixing alone, as a share of the step
bench-mixers: ## A step of every mixer, and what it asks of the model
bench-backbones: ## Every backbone: parameters, GMACs, tokens, step
bench-loading: ## The loader beside timm's   (ARGS=FOLDER)
bench-evaluation: ## One pass of occlusion beside eleven; time and memory of calibration
$(SPEEDS): bench-%: install
	$(BIN)/python benchmarks/$*.py $(ARGS)

bench-gpu: install ## Everything that only a GPU can tell, in nine minutes   (OUT=DIR; ARGS=--smoke for the CPU)
	PYTHON=$(BIN)/python benchmarks/gpu.sh $(ARGS) $(or $(OUT),runs/gpu)

bench-motivation: install ## Cheaper motivations: step time, and the regions they choose   (IMAGES=DIR; MODELS=deit_t CKPT=FILE)
	@test -n "$(IMAGES)" || { echo "name a folder of photographs: make bench-motivation IMAGES=DIR" >&2; exit 1; }
	$(BIN)/python benchmarks/motivation.py $(MODELS) --images '$(IMAGES)' \
		$(if $(filter command line environment,$(origin CKPT)),--checkpoint '$(CKPT)')

bench-table: install ## The rows measured so far, beside the published ones
	$(BIN)/python benchmarks/reproduce.py --table

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
