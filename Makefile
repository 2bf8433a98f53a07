# Every target sets up what it needs. `make test` and `make demo` are all a fresh machine needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
EXTRAS := annotate,crowd,datasets,onnx,postgres,report
PYTEST_ARGS ?=
BENCH_ARGS ?=
WORKERS ?= auto
DEMO_DIR ?= demo-output
LOCK := requirements-dev.lock
WITH ?= huggingface-hub<1
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES = $(shell find crayon_sdk -type f -not -path '*/__pycache__/*')

# The first Python that is new enough; `make test PYTHON=python3.12` chooses another one.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo "$$name"; break; fi; done)

# uv where it is installed, pip where not. pip reads dependency groups from 25.1 on; Python may bring an older one.
UV := $(shell command -v uv)
ifdef UV
INSTALL := uv pip install --quiet --python $(BIN)/python
NEW_PIP := true
else
INSTALL := $(PIP) install
NEW_PIP := $(PIP) install 'pip>=25.1'
endif

.PHONY: help install locked lock test test-lowest test-with lint format docs zensical dist licences demo bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.stamp-dev ## make .venv with the package (editable) and every tool

locked: | $(BIN)/pip ## the same with the versions of requirements-dev.lock, and no others
	$(INSTALL) --require-hashes --requirement $(LOCK)
	$(INSTALL) --no-deps --editable .
	@touch $(VENV)/.stamp-dev $(VENV)/.stamp-run

# Without the address of an index and without the paths of this machine: any index that has the files will do.
lock: $(VENV)/.stamp-dev ## write requirements-dev.lock anew (needs uv)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.10 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --quiet --output-file $(LOCK) $(addprefix --constraint ,$(CONSTRAINT))

test: lint ## set up, then lint, type check and run the tests (PYTEST_ARGS=... is passed on)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Twice, since the exporter of ONNX files needs a newer torch than the rest.
test-lowest: $(LOWEST)/.stamp $(LOWEST)-onnx/.stamp ## run the tests with the lowest versions that pyproject.toml allows (PYTHON=python3.10 or 3.11)
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(LOWEST)-onnx/bin/python -m pytest tests/models/test_onnx.py

test-with: $(VENV)-with/.stamp ## run what touches the Hub and timm with another version: WITH='huggingface-hub<1'
	$(VENV)-with/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/base/test_publishing.py \
	  tests/answers/test_on_hub.py tests/cli/test_cli_hub.py tests/models/test_hub_loading.py \
	  tests/models/test_rebuild.py tests/models/test_proof.py tests/results/test_hub_corrections.py $(PYTEST_ARGS)

lint: $(VENV)/.stamp-dev ## ruff check, ruff format --check, mypy --strict, codespell, zizmor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github

format: $(VENV)/.stamp-dev ## let ruff repair and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-dev ## build the documentation into site/
	$(BIN)/mkdocs build --strict

zensical: $(VENV)/.stamp-dev ## build it into site/ with Zensical, which is to follow MkDocs; docs/release.md says what it lacks
	$(INSTALL) --group zensical
	$(BIN)/zensical build

dist: $(VENV)/.stamp-dev ## build wheel and sdist into dist/, and check both
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	@size=$$(wc -c < dist/*.whl); (( size < 1000000 )) || { echo "the wheel has $$size bytes, over 1 MB" >&2; exit 1; }

licences: $(VENV)/.stamp-dev ## the licences of all that users install; fails where one does not fit Apache-2.0
	$(BIN)/python docs/licences.py

demo: $(VENV)/.stamp-run ## set up, then run the whole method on pictures it draws itself
	$(BIN)/crayon demo $(DEMO_DIR)

bench: $(VENV)/.stamp-dev ## run the speed benchmarks (BENCH_ARGS=--short shows only that they run)
	@for name in step explain prune end_to_end; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py $(BENCH_ARGS); done

clean: ## delete everything the other targets made
	rm -rf $(VENV) $(VENV)-with $(LOWEST) $(LOWEST)-onnx site build dist demo-output
	rm -rf .cache tests/node_modules htmlcov .coverage .coverage.* coverage.xml .hypothesis .mypy_cache .pytest_cache .ruff_cache
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
	@echo "Installing crayon-sdk with [$(EXTRAS)] and the tools into $(VENV); the first time this downloads PyTorch"
	$(NEW_PIP)
	$(INSTALL) --editable '.[$(EXTRAS)]' --group dev
	@touch $@ $(VENV)/.stamp-run

$(LOWEST)/.stamp: extras = annotate,crowd,datasets,postgres,report
$(LOWEST)-onnx/.stamp: extras = onnx
$(LOWEST)/.stamp $(LOWEST)-onnx/.stamp: pyproject.toml
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --resolution lowest-direct \
	  --editable '.[$(extras)]' --group dev
	@touch $@

# Made anew each time: WITH differs.
.PHONY: $(VENV)-with/.stamp
$(VENV)-with/.stamp:
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --editable '.[annotate,datasets,report]' --group test '$(WITH)'

# An editable install serves the demo too; a plain one is repeated when the package changes.
$(VENV)/.stamp-run: pyproject.toml $(SOURCES) | $(BIN)/pip
	@if [ -e $(VENV)/.stamp-dev ] && [ $(VENV)/.stamp-dev -nt pyproject.toml ]; then :; else \
	  echo "Installing crayon-sdk into $(VENV); the first time this downloads PyTorch"; \
	  $(INSTALL) . && rm -f $(VENV)/.stamp-dev; fi
	@touch $@
