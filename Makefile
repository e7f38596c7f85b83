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
DOCS_STAMP := $(VENV)/.installed-docs

# Workers of the test suite; PYTEST passes options on.
WORKERS ?= 2
pytest = -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

.PHONY: help setup demo test test-newest test-oldest lock check check-style check-types check-floors format clean docs bench peers notebooks server server-test

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(DEV_STAMP) ## environment with everything needed to develop

demo: $(CORE_STAMP) ## environment, installation, and one PAPO run on drawn scenes (no GPU, no download)
	$(BIN)/python train.py

test: $(DEV_STAMP) ## the test suite, with the locked versions
	$(BIN)/python $(pytest)

# The ends of the ranges, each in an environment of its own: deprecations, most of them of one package about another,
# are warnings there, listed at the end; anywhere else they are errors.
ends = $(pytest) $(foreach kind,DeprecationWarning PendingDeprecationWarning FutureWarning,-W default::$(kind))

test-newest: ## the suite with the newest versions that pyproject.toml allows
	@test -x .venv-newest/bin/python || "$(PYTHON)" -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[dev]'
	.venv-newest/bin/python $(ends)

test-oldest: ## the suite with the oldest versions that pyproject.toml allows
	@test -x .venv-oldest/bin/python || "$(PYTHON)" -m venv .venv-oldest
	$(call install,.venv-oldest/bin/python,--constraint constraints/oldest.txt,dev)
	.venv-oldest/bin/python $(ends)

# uv only writes the lists: what they hold is installed with plain pip.
lock: $(DEV_STAMP) ## write constraints/ anew: the newest versions, and the oldest
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(call compile,--universal --upgrade --constraint constraints/torch.txt --output-file constraints/locked.txt)
	sed -i.old -E '/^(torch|triton|(nvidia|cuda)-[a-z0-9-]+)==/d' constraints/locked.txt
	$(call compile,--upgrade --resolution lowest-direct --output-file constraints/oldest.txt)
	sed -i.old -E '/^(triton|(nvidia|cuda)-[a-z0-9-]+)==/d' constraints/oldest.txt
	rm constraints/*.old

check: check-style check-types check-floors ## format, lint, types and the floors of the architecture

check-style: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check-types: $(DEV_STAMP)
	$(BIN)/mypy

check-floors: $(DEV_STAMP)
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS_STAMP) ## the site of README and docs/: outputs/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo 'to read and search it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory outputs/docs'

# One thread, so that CPU seconds mean the same on a shared machine. BENCH passes options on.
bench: $(DEV_STAMP) ## speed and memory against other trainers (about 25 minutes)
	@$(MAKE) --no-print-directory peers || echo "no environments for the peers: their rows say so"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH)

peers: $(DEV_STAMP) $(foreach v,1.7.1 1.16.0,outputs/benchmarks/venv-trl-$(v)/.installed) outputs/benchmarks/prefix-grouper-0.0.1.post1 ## what is compared with

outputs/benchmarks/venv-trl-%/.installed: benchmarks/peers/constraints.txt
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< trl==$* torch transformers pillow requests
	touch $@

# A rollout server (servers/vllm) has an environment of its own: vLLM and papo want other versions of transformers.
SERVER := .server
SERVER_STAMP := $(SERVER)/venv/.installed
PORT ?= 8000

$(SERVER_STAMP): servers/vllm/requirements-cpu.txt servers/vllm/prepare_cpu.py servers/vllm/plugin/pyproject.toml
	@test -n "$(PYTHON)" || { echo "no python3.11 found: set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(SERVER)/venv/bin/python || "$(PYTHON)" -m venv $(SERVER)/venv
	$(SERVER)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement servers/vllm/requirements-cpu.txt
	$(SERVER)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable servers/vllm/plugin
	$(SERVER)/venv/bin/python servers/vllm/prepare_cpu.py
	touch $@

server: $(DEV_STAMP) $(SERVER_STAMP) ## a rollout server on this CPU, with a random tiny model (PORT=8000)
	mkdir -p $(SERVER)/weights
	test -d $(SERVER)/tiny || $(BIN)/python servers/vllm/tiny_model.py $(SERVER)/tiny
	CPU=1 PORT=$(PORT) servers/vllm/serve.sh $(SERVER)/tiny $(SERVER)/weights --max-model-len 512

server-test: $(DEV_STAMP) $(SERVER_STAMP) ## rollouts on real servers, started for it (about 15 minutes, 4 GB)
	PAPO_TEST_VLLM=1 timeout --signal=INT 3600 $(BIN)/python -m pytest -m vllm -p no:xdist -rP tests/rollout $(PYTEST)

# Pure Python: it runs on this project's own torch and transformers.
outputs/benchmarks/prefix-grouper-%:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ prefix-grouper==$*

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

# Installs papo with an extra: $(call install,PYTHON,CONSTRAINTS,EXTRA). The build backend is one of the locked
# packages: fetched anew for every build, it would be another one next year, and a build would need the network.
define install
	@echo "installing papo$(if $(3),[$(3)]) into $(1:/bin/python=)"
	@$(1) -m pip install --no-compile --quiet --disable-pip-version-check $(2) setuptools
	@$(1) -m pip install --no-compile --quiet --disable-pip-version-check $(2) --no-build-isolation --editable '.$(if $(3),[$(3)])'
endef

compile = $(BIN)/uv pip compile --quiet --python-version 3.11 --extra dev --extra docs --no-header --no-annotate $(1) pyproject.toml >/dev/null

# What the suite passed with, and a torch where there is none yet.
has_torch = $(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'
locked = --constraint constraints/locked.txt $$($(has_torch) || echo --constraint constraints/torch.txt)

$(CORE_STAMP): pyproject.toml constraints/locked.txt | $(BIN)/python
	$(call install,$(BIN)/python,$(locked))
	touch $@

$(DEV_STAMP): pyproject.toml constraints/locked.txt | $(BIN)/python
	$(call install,$(BIN)/python,$(locked),dev)
	touch $@ $(CORE_STAMP)

$(DOCS_STAMP): pyproject.toml constraints/locked.txt | $(BIN)/python
	$(call install,$(BIN)/python,$(locked),docs)
	touch $@
