# `make demo` and `make test` set everything up on a fresh machine and do their job; run again,
# they do only what changed. Nothing but make and Python 3.11+ has to be there.

PYTHON ?= python3
VENV   ?= .venv
# Where torch comes from. A machine without a GPU saves gigabytes with
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH  ?= torch==2.13.0
TORCH_INDEX ?=

BIN   := $(VENV)/bin
MADE  := .make
PIP   := $(BIN)/python -m pip --disable-pip-version-check -q
NPM   := PATH="$(abspath $(BIN)):$$PATH" npm
INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

PY_SOURCES := $(shell find src kernels -name '*.py' -not -path '*/node_modules/*')
ASSETS     := $(shell find src kernels -type f \( -name '*.json' -o -name '*.jsonl' -o -name '*.jinja' -o -name '*.safetensors' \) -not -path '*/labextension/*' -not -path '*/static/*')
TS_SOURCES := $(shell find lab_extension -type f -not -path '*/lib/*' -not -path '*/node_modules/*') package.json package-lock.json
TESTS      := $(shell find tests -name '*.py' -not -path '*/browser/*' -not -path '*/wheel/*' -not -path '*/notebooks/*')
BENCHMARKS := $(shell find benchmarks -name '*.py')
NOTEBOOKS  := $(shell find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*')
PYTEST     := $(BIN)/python -m pytest -q
# Python tests run in two processes, each of which takes up to 2 GB. A browser wants the cores to
# itself: side by side (BROWSERS=2), tests failed now and then on a busy machine of two cores.
WORKERS    ?= 2
BROWSERS   ?= 0
SIDE_BY_SIDE := -n $(WORKERS) --dist worksteal

.PHONY: demo test lab docs wheel screenshots test-floor gpu-test gpu-bench format clean help

help:                       ## what there is to make
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

# ---------------------------------------------------------------- setting up

$(MADE)/python:
	@mkdir -p $(MADE)
	@$(PYTHON) -c 'import sys; sys.exit("Tunebook needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.12 demo" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(MADE)/tools: pyproject.toml constraints.txt | $(MADE)/python
	@echo "Installing the build tools, Node among them ..."
	$(PIP) install -c constraints.txt --group build
	@touch $@

$(MADE)/frontend: $(TS_SOURCES) $(wildcard notebooks/01_guided.ipynb) $(MADE)/tools
	@echo "Building the front end ..."
	$(NPM) ci --no-audit --no-fund --loglevel=error
	$(NPM) run --silent build:prod
	@touch $@

$(MADE)/installed: pyproject.toml constraints.txt $(MADE)/frontend
	@echo "Installing torch and the other packages (minutes, the first time) ..."
	@# --no-compile: most of their modules are never imported; the others are compiled as they are
	$(PIP) install --no-compile $(INDEX) $(TORCH)
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --no-compile -c constraints.txt --no-build-isolation -e '.[lab]'
	@touch $@

$(MADE)/test-packages: pyproject.toml constraints.txt $(MADE)/installed
	$(PIP) install -c constraints.txt --group test
	@touch $@

# ---------------------------------------------------------------- using it

demo: $(MADE)/installed     ## set up and run the guided fine-tune from end to end
	@$(BIN)/tunebook demo

lab: $(MADE)/installed      ## open JupyterLab with the guided notebook
	$(BIN)/jupyter lab notebooks/01_guided.ipynb

# ---------------------------------------------------------------- testing

test: $(MADE)/test-lint $(MADE)/test-typescript $(MADE)/test-python $(MADE)/test-notebooks $(MADE)/test-browser $(MADE)/test-wheel  ## set up and test everything
	@echo "All tests have passed."

$(MADE)/test-lint: $(PY_SOURCES) $(TESTS) $(BENCHMARKS) $(MADE)/test-packages
	$(BIN)/ruff check src kernels tests docs benchmarks
	$(BIN)/ruff format --check src kernels tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	@touch $@

$(MADE)/test-typescript: $(MADE)/frontend
	$(NPM) run --silent lint
	$(NPM) test --silent
	@touch $@

$(MADE)/test-python: $(PY_SOURCES) $(ASSETS) $(TESTS) $(BENCHMARKS) $(wildcard docs/*) $(MADE)/test-packages
	$(PYTEST) $(SIDE_BY_SIDE) --ignore tests/browser --ignore tests/notebooks --ignore tests/wheel
	@touch $@

$(MADE)/test-notebooks: $(NOTEBOOKS) $(PY_SOURCES) $(wildcard tests/notebooks/*.py) $(MADE)/test-packages
	$(PYTEST) $(SIDE_BY_SIDE) tests/notebooks
	@touch $@

$(MADE)/chromium: tests/browser/chromium.py $(MADE)/test-packages
	$(BIN)/python tests/browser/chromium.py
	@touch $@

# ipykernels of other releases, and Colab's widget packages: folders that a kernel puts first
$(MADE)/stacks/fetched: tests/browser/stacks.py $(MADE)/test-packages
	$(BIN)/python tests/browser/stacks.py
	@touch $@

$(MADE)/test-browser: $(wildcard tests/browser/*.py) $(PY_SOURCES) $(MADE)/frontend $(MADE)/chromium $(MADE)/stacks/fetched
	$(PYTEST) -n $(BROWSERS) --dist loadfile tests/browser
	@touch $@

$(MADE)/test-wheel: $(wildcard tests/wheel/*.py) $(PY_SOURCES) $(ASSETS) $(MADE)/frontend $(MADE)/chromium
	$(PYTEST) tests/wheel
	@touch $@

test-floor: $(MADE)/frontend ## the Python tests at the oldest supported versions
	$(MAKE) VENV=.venv-floor MADE=.make/floor .make/floor/tested-floor

$(MADE)/tested-floor: $(PY_SOURCES) $(ASSETS) $(TESTS) constraints-floor.txt pyproject.toml $(MADE)/python
	$(PIP) install $(INDEX) $(TORCH)
	$(PIP) install -c constraints-floor.txt --group build --group test-python
	$(PIP) install -c constraints-floor.txt --no-build-isolation -e .
	$(PYTEST) $(SIDE_BY_SIDE) --ignore tests/browser --ignore tests/wheel
	@touch $@

# On a machine with a GPU whose Python has torch and the packages already; nothing is installed.
HERE := PYTHONPATH="$(CURDIR)/src:$(CURDIR)/kernels:$$PYTHONPATH"
OUT  ?= .
SIZES ?= 1b

gpu-test:                   ## on a machine with a GPU: kernels, engine, training, export
	$(HERE) $(PYTHON) -m pytest -q tests/kernels tests/engine tests/training tests/export

gpu-bench:                  ## on a machine with a GPU: the benchmarks, printed and written to OUT
	$(HERE) $(PYTHON) -W ignore benchmarks/forecast_error.py --device cuda --json $(OUT)/forecast_cuda.json
	$(HERE) $(PYTHON) -W ignore benchmarks/engine_memory.py --json $(OUT)/engine_memory.json
	$(HERE) $(PYTHON) benchmarks/training_speed.py all --sizes $(SIZES) --json $(OUT)/training_speed.jsonl

# ---------------------------------------------------------------- making things

docs: $(MADE)/installed     ## the pages made from the code's own tables
	$(BIN)/python docs/generate.py

wheel: $(MADE)/frontend     ## dist/*.whl, with the front end in it
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m build --wheel --no-isolation

screenshots: $(MADE)/chromium $(MADE)/frontend  ## every panel and JupyterLab's own views, light, dark and narrow
	$(BIN)/python tests/browser/screenshots.py docs/screenshots

format: $(MADE)/test-packages  ## let ruff format the Python code
	$(BIN)/ruff check --fix src kernels tests docs benchmarks
	$(BIN)/ruff format src kernels tests docs benchmarks

clean:                      ## remove what was made, but not runs/
	rm -rf $(MADE) $(VENV) .venv-floor node_modules dist lab_extension/lib src/tunebook/labextension src/tunebook/widgets/static
