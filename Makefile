# Every target sets up what it needs. `make test` and `make demo` are all a fresh machine needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
EXTRAS := dev,docs,annotate,crowd,onnx,postgres,report
PYTEST_ARGS ?=
WORKERS ?= auto
DEMO_DIR ?= demo-output
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES = $(shell find crayon_sdk -type f -not -path '*/__pycache__/*')

# The first Python that is new enough; `make test PYTHON=python3.12` chooses another one.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo "$$name"; break; fi; done)

.PHONY: help install test test-lowest lint format docs demo bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.stamp-dev ## make .venv with the package (editable) and every tool

test: lint ## set up, then lint, type check and run the tests (PYTEST_ARGS=... is passed on)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Twice, since the exporter of ONNX files needs a newer torch than the rest.
test-lowest: $(LOWEST)/.stamp $(LOWEST)-onnx/.stamp ## run the tests with the lowest versions that pyproject.toml allows (PYTHON=python3.10 or 3.11)
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(LOWEST)-onnx/bin/python -m pytest tests/models/test_onnx.py

lint: $(VENV)/.stamp-dev ## ruff check, ruff format --check, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev ## let ruff repair and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-dev ## build the documentation into site/
	$(BIN)/mkdocs build --strict

demo: $(VENV)/.stamp-run ## set up, then run the whole method on pictures it draws itself
	$(BIN)/crayon demo $(DEMO_DIR)

bench: $(VENV)/.stamp-dev ## run the speed benchmarks
	@shopt -s nullglob; scripts=(benchmarks/bench_*.py); \
	(( $${#scripts[@]} )) || { echo "no benchmarks/bench_*.py to run" >&2; exit 1; }; \
	for script in "$${scripts[@]}"; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## delete everything the other targets made
	rm -rf $(VENV) $(LOWEST) $(LOWEST)-onnx site build dist demo-output htmlcov .coverage .coverage.* coverage.xml
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip arrives last in a new environment: where it is, the environment is whole.
$(BIN)/pip:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "crayon-sdk needs Python 3.10 or newer, and none was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/pip
	@echo "Installing crayon-sdk with [$(EXTRAS)] into $(VENV); the first time this downloads PyTorch"
	$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.stamp-run

$(LOWEST)/.stamp: extras = dev,docs,annotate,crowd,postgres,report
$(LOWEST)-onnx/.stamp: extras = dev,onnx
$(LOWEST)/.stamp $(LOWEST)-onnx/.stamp: pyproject.toml
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --resolution lowest-direct --editable '.[$(extras)]'
	@touch $@

# An editable install serves the demo too; a plain one is repeated when the package changes.
$(VENV)/.stamp-run: pyproject.toml $(SOURCES) | $(BIN)/pip
	@if [ -e $(VENV)/.stamp-dev ] && [ $(VENV)/.stamp-dev -nt pyproject.toml ]; then :; else \
	  echo "Installing crayon-sdk into $(VENV); the first time this downloads PyTorch"; \
	  $(PIP) install . && rm -f $(VENV)/.stamp-dev; fi
	@touch $@
