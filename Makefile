# Two commands for a fresh machine: `make demo` and `make test`. `make help` lists the rest.
# PYTHON chooses the interpreter the environment is made with, VENV where it lives.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# A stamp says which pyproject.toml an environment was installed from: nothing is installed twice.
CORE_STAMP := $(VENV)/.installed-core
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help setup demo test check format clean bench peers notebooks

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(DEV_STAMP) ## environment with everything needed to develop

demo: $(CORE_STAMP) ## environment, installation, and one PAPO run on drawn scenes (no GPU, no download)
	$(BIN)/python train.py

test: $(DEV_STAMP) ## the test suite
	$(BIN)/python -m pytest

check: $(DEV_STAMP) ## format, lint, types and the floors of the architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# One thread, so that CPU seconds mean the same on a shared machine. BENCH passes options on.
bench: $(DEV_STAMP) ## speed and memory against other trainers (about 20 minutes)
	@$(MAKE) --no-print-directory peers || echo "no environments for the peers: their rows say so"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH)

peers: $(DEV_STAMP) $(foreach v,1.7.1 1.16.0,outputs/benchmarks/venv-trl-$(v)/.installed) ## environments of the trainers compared with

outputs/benchmarks/venv-trl-%/.installed: benchmarks/peers/constraints.txt
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< trl==$* torch transformers pillow requests
	touch $@

notebooks: $(DEV_STAMP) ## JupyterLab on notebooks/ (installs it)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check jupyterlab
	$(BIN)/jupyter lab notebooks

clean: ## remove caches and build products; the environment and outputs/ stay
	rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no python3.11 or python3 found: set PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"papo needs Python 3.11 to 3.13; {sys.executable} is {v.major}.{v.minor}. Set PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv $(VENV)

$(CORE_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(CORE_STAMP)
