# `make` says what there is. Everything runs in .venv, which is made once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.complete
NODE := tests/bench/.node

.PHONY: help build-venv demo test lint types requirements simulate bench clean

help:
	@echo 'make demo          a session of three applications, to look at; ARGS=--keep leaves the hub running'
	@echo 'make test          all checks: lint, types, requirements, tests'
	@echo 'make lint          ruff: rules and format'
	@echo 'make types         mypy, strict'
	@echo 'make requirements  the behaviours of docs/behaviour.md and how many tests prove each'
	@echo 'make simulate      the core against clients and networks of all tempers: SEEDS=1000 of them, or one SEED=123'
	@echo 'make bench         the hub beside a bare uvicorn and a bare node; ARGS=--quick for a short look'
	@echo 'make build-venv    only makes $(VENV)'
	@echo 'make clean         removes all that was made here'

build-venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is: `$(PYTHON) --version 2>&1`. Another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { \
	  tools/need.sh python3-venv -- $(PYTHON) -c 'import ensurepip' && $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV)"
	@$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(RUN) -m demo $(ARGS)

# The order puts the quick checks first, and the tests' own summary at the end.
test: lint types
	@tools/need.sh curl -- curl --version
	@$(RUN) tests/requirements.py --check
	@$(RUN) -m pytest $(ARGS)

lint: $(STAMP)
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --quiet --check --diff

types: $(STAMP)
	@$(VENV)/bin/mypy

requirements: $(STAMP)
	@$(RUN) tests/requirements.py

simulate: $(STAMP)
	@PYTHONPATH=tests $(RUN) -m simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

bench: $(STAMP)
	@tools/need.sh gcc libc6-dev -- gcc --version
	@tools/need.sh nodejs npm -- npm --version
	@$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen loadgen
	@test -d $(NODE)/node_modules/ws || npm install --silent --no-save --prefix $(NODE) ws@8
	@$(RUN) tests/bench/bench.py $(ARGS)

clean:
	rm -rf $(VENV) $(NODE) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hub tests demo -name __pycache__ -type d -exec rm -rf {} +
	$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen clean
