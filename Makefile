# `make` says what there is. Everything runs in .venv, which is made once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.complete
NODE := tests/bench/.node
JS := clients/javascript

.PHONY: help build-venv demo test test-demo test-others lint types javascript pictures requirements simulate bench clean

help:
	@echo 'make demo          an EHR, two viewers, a chart and a report, in step in your browser, until Ctrl-C'
	@echo 'make test          all checks: lint, types, requirements, tests; ARGS=tests/core for some of the tests'
	@echo 'make lint          ruff: rules and format'
	@echo 'make types         mypy, strict'
	@echo 'make javascript    types and tests of the JavaScript client'
	@echo 'make pictures      takes the pictures of docs/pictures anew, from the browser tests'
	@echo 'make requirements  the behaviours of docs/behaviour.md and how many tests prove each'
	@echo 'make simulate      the core against clients and networks of all tempers: SEEDS=1000 of them, or one SEED=123'
	@echo 'make bench         the hub beside a bare uvicorn and a bare node; ARGS=--quick for a short look'
	@echo 'make build-venv    only makes $(VENV)'
	@echo 'make clean         removes all that was made here'

build-venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is: `$(PYTHON) --version 2>&1`. Another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { \
	  tools/need.sh python3-venv -- $(PYTHON) -c 'import ensurepip' && $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV)"
	@$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,demo]' --editable clients/python
	@touch $@

demo: $(STAMP)
	@$(RUN) -m demo $(ARGS)

# The quick checks come first. Without ARGS the rest is run in two halves at once, for the browser's tests mostly wait.
test: lint types
	@tools/need.sh curl -- curl --version
	@tools/need.sh nginx -- env PATH="$$PATH:/usr/sbin" nginx -v
	@tools/need.sh orthanc orthanc-dicomweb -- env PATH="$$PATH:/usr/sbin" Orthanc --version
	@tools/need.sh chromium -- chromium --version
	@$(RUN) tests/requirements.py --check
	@$(if $(ARGS),$(RUN) -m pytest $(ARGS),$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-demo test-others javascript)

test-demo: $(STAMP)
	@$(RUN) -m pytest tests/demo tests/browser

test-others: $(STAMP)
	@$(RUN) -m pytest --ignore=tests/demo --ignore=tests/browser

lint: $(STAMP)
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --quiet --check --diff

types: $(STAMP)
	@$(VENV)/bin/mypy

# Node 20 is not in every Debian, so it is not installed from there when another one is found.
javascript: $(STAMP)
	@tools/need.sh nodejs npm -- npm --version
	@node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' || { \
	  echo "Node 20 or newer is needed for the JavaScript client's tests, and this is `node --version`" >&2; exit 1; }
	@test -d $(JS)/node_modules/typescript || npm install --silent --no-package-lock --no-audit --no-fund --prefix $(JS)
	@npm run --silent --prefix $(JS) types
	@PYTHON=$(CURDIR)/$(RUN) npm test --silent --prefix $(JS)

pictures: $(STAMP)
	@tools/need.sh chromium -- chromium --version
	@PICTURES=$(CURDIR)/docs/pictures $(RUN) -m pytest -q tests/browser/test_story.py -k 'measurement or hold_the_chart_back'

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
	rm -rf $(VENV) $(NODE) $(JS)/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hub clients/python tests demo -name __pycache__ -type d -exec rm -rf {} +
	$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen clean
