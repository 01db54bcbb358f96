# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export WANDB_SILENT ?= true
# uv installs several times faster than pip; it is used where it is present
UV := $(shell command -v uv 2>/dev/null)
PIP := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install)
QUIET := --quiet

# One target per row of the published results table. DATA=DIR holds the dataset; a run resumes where
# it stopped, on whatever devices there are. VARIANT=reduced is the published variant; SEEDS="0 1 2";
# SMOKE=1 uses generated data and a few steps.
BENCHES := $(addprefix bench-,cifar100 cifar100-occlusion cifar100-ece cars aircraft cub imagenet)
COSTS := $(addprefix bench-,step-speed loader-speed mixing-cost mixer-cost backbone-cost evaluation-cost overhead end-to-end)

.DEFAULT_GOAL := help
.PHONY: help install install-test fit eval calibrate compare report attend dashboard docs test lint typecheck
.PHONY: pytest test-slow test-reliability clean bench-guide-cost bench-gpu bench-oracle bench-table evidence $(BENCHES)
.PHONY: $(COSTS)

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-26s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## Create a virtual environment with pinned versions

install-test: $(BIN)/.installed-test ## The same, with everything that the tests need

$(BIN)/python:
	$(if $(UV),$(UV) venv --quiet --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

$(BIN)/.installed: setup.cfg constraints.txt | $(BIN)/python
	@echo "Installing smmix_pl and its dependencies into $(VENV) (torch is most of 6.5 GB)."
	$(PIP) $(QUIET) --constraint constraints.txt --editable .
	touch $@

$(BIN)/.installed-test: setup.cfg constraints.txt | $(BIN)/python
	@echo "Installing smmix_pl with test dependencies into $(VENV) (torch is most of 6.5 GB)."
	$(PIP) $(QUIET) --constraint constraints.txt --editable '.[test]'
	touch $@ $(BIN)/.installed

fit: install ## Train a small ViT with SMMix on handwritten digits, test it, print the table
	$(BIN)/smmix fit --config digits.yaml

# The newest trained digits run and its checkpoint
NEWEST = $(patsubst %/checkpoints/best.ckpt,%,$(shell ls -t runs/digits/*/version_*/checkpoints/best.ckpt 2>/dev/null | head -n 1))
CKPT ?= $(addsuffix /checkpoints/best.ckpt,$(NEWEST))

eval: install ## Evaluate the newest checkpoint of fit, or CKPT=FILE: all metrics, tables, and figures
	@test -n "$(CKPT)" || { echo "no checkpoint under runs/digits: run make fit first" >&2; exit 1; }
	$(BIN)/smmix test --config digits.yaml --config with/eval.yaml --ckpt_path "$(CKPT)"

calibrate: install ## Calibrate the newest checkpoint of fit, or CKPT=FILE, and test it again
	@test -n "$(CKPT)" || { echo "no checkpoint under runs/digits: run make fit first" >&2; exit 1; }
	$(BIN)/smmix calibrate "$(CKPT)"
	$(BIN)/smmix test --config digits.yaml --ckpt_path "$(CKPT:.ckpt=_calibrated.ckpt)" --name digits_calibrated

compare: install ## Compare runs: make compare RUNS="FOLDER NAME=FOLDER"
	@test -n "$(RUNS)" || { echo 'name the folders of tested runs: make compare RUNS="FOLDER FOLDER"' >&2; exit 1; }
	$(BIN)/smmix compare $(RUNS)

report: install ## One HTML page about runs: make report RUNS="FOLDER NAME=FOLDER" OUT=report.html
	@test -n "$(or $(RUNS),$(NEWEST))" || { echo "no run under runs/digits: make report RUNS=FOLDER" >&2; exit 1; }
	$(BIN)/smmix report $(or $(RUNS),$(NEWEST)) --output $(or $(OUT),report.html)

dashboard: install ## A W&B workspace and a report: make dashboard PROJECT=ENTITY/PROJECT
	@test -n "$(PROJECT)" || { echo "name a W&B project: make dashboard PROJECT=ENTITY/PROJECT" >&2; exit 1; }
	$(BIN)/smmix dashboard "$(PROJECT)"

attend: install ## Attention and mixes of your images: make attend IMAGES=FOLDER CKPT=FILE OUT=attention.html
	@test -n "$(IMAGES)" || { echo "name a folder of images: make attend IMAGES=FOLDER" >&2; exit 1; }
	@test -n "$(CKPT)" || { echo "no checkpoint under runs/digits: run make fit first, or pass CKPT=FILE" >&2; exit 1; }
	$(BIN)/smmix attend '$(IMAGES)' --checkpoint '$(CKPT)' --output $(or $(OUT),attention.html)

docs: install-test ## Build the documentation site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

test: install-test lint typecheck pytest ## Lint, format check, type check, and tests

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: install-test
	$(BIN)/mypy

pytest: install-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m 'not slow'

test-slow: install-test ## The tests that take minutes
	$(BIN)/pytest -q -m slow

test-reliability: install-test ## Resuming, kills, preemption, ranks, and long runs: memory, files, processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow tests/runs tests/callbacks

bench-cifar100: ## CIFAR-100, DeiT-S: top-1, published 79.84   (DATA=DIR, or SMOKE=1)
bench-cifar100-occlusion: ## CIFAR-100, ViT-S: occlusion, published 79.32 at 0%
bench-cifar100-ece: ## CIFAR-100, ViT-L: ECE, published 7.70
bench-cars: ## Stanford Cars, ViT-B: top-1, published 91.93
bench-aircraft: ## FGVC-Aircraft, ViT-B: top-1, published 78.40
bench-cub: ## CUB-200, ViT-B: top-1, published 88.35
bench-imagenet: ## ImageNet-1k, DeiT-S: top-1, occlusion, and ECE, published 79.36, 79.32, 6.53
$(BENCHES): bench-%: install
	$(BIN)/python benchmarks/reproduce.py $* $(if $(SMOKE),--smoke,--data '$(DATA)') \
		$(if $(VARIANT),--variant $(VARIANT)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

evidence: install ## SMMix, other mixers, and ablations on one schedule   (SET=digits, or SET=cifar10_small DATA=DIR; other sets: evidence.py --help)
	$(BIN)/python benchmarks/evidence.py $(or $(SET),digits) $(if $(DATA),--data '$(DATA)') \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

bench-step-speed: ## Training steps by mixer, on CPU or GPU   (ARGS="--precision bf16 --compile --reference PATH")
bench-loader-speed: ## Our data loader compared with timm's   (ARGS=FOLDER)
bench-mixing-cost: ## Time of mixing alone, in ms and as a fraction of a step
bench-mixer-cost: ## A step of every mixer, and what it needs from the model
bench-backbone-cost: ## Every backbone: parameters, GMACs, tokens, step
bench-overhead: ## What a run costs on top of its training steps, by cause   (ARGS="--clock cpu")
bench-end-to-end: ## A complete run compared with timm's train.py   (ARGS="TRAIN_PY FOLDER")
bench-evaluation-cost: ## One pass of occlusion compared with eleven; time and memory of calibration
$(COSTS): bench-%: install
	$(BIN)/python benchmarks/$(subst -,_,$*).py $(ARGS)

bench-gpu: install-test ## Everything that only a GPU can measure, in nine minutes   (OUT=DIR; ARGS=--smoke for the CPU)
	PYTHON=$(BIN)/python benchmarks/gpu.sh $(ARGS) $(or $(OUT),runs/gpu)

bench-guide-cost: install ## Cheaper guide passes: step time, and the regions they choose   (IMAGES=DIR; MODELS=deit_t CKPT=FILE)
	@test -n "$(IMAGES)" || { echo "IMAGES: missing. Name a folder of photographs: make bench-guide-cost IMAGES=DIR" >&2; exit 1; }
	$(BIN)/python benchmarks/guide_cost.py $(MODELS) --images '$(IMAGES)' \
		$(if $(filter command line environment,$(origin CKPT)),--checkpoint '$(CKPT)')

bench-oracle: install ## What knowing the object's place is worth   (OBJECTS=DIR BACKGROUNDS=DIR INIT=FILE; SEEDS="0 1 2 3 4")
	@test -n "$(OBJECTS)" -a -n "$(BACKGROUNDS)" || { echo "OBJECTS, BACKGROUNDS: missing. Name folders of photographs: make bench-oracle OBJECTS=DIR BACKGROUNDS=DIR" >&2; exit 1; }
	$(BIN)/python benchmarks/oracle_study.py $(or $(MODEL),vit_small_patch14_dinov2) --objects '$(OBJECTS)' \
		--backgrounds '$(BACKGROUNDS)' $(if $(INIT),--init '$(INIT)',--pretrained) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

bench-table: install ## The rows measured so far, beside the published ones
	$(BIN)/python benchmarks/reproduce.py --table

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
