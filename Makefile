# Every target installs what it needs: a virtual environment in .venv, Chromium for `test`, servers for `test-rest`.
# Requires make and Python 3.11 to 3.14. Choose an interpreter with PYTHON=….

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo "$$python" && break; done)
BIN := .venv/bin
# Otherwise each of the many processes that tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST_OPTIONS ?=
# The newest version that runs on the Node.js of Debian 13.
AZURITE_VERSION := 3.35.0
# In an environment of its own, because dbt-core needs an older pathspec than constraints.txt has for other tools.
DBT := dbt-core==1.11.16 dbt-duckdb==1.11.1 $(shell grep ^duckdb== constraints.txt)

# The tests of each layer, in which another version of a dependency would show.
LAYERS := $(addprefix tests/,contract client lake ingest defs)
COMPATIBILITY := $(addprefix compatibility-,$(foreach version,3.11 3.12 3.13 3.14,\
	$(if $(shell command -v python$(version)),$(version)-pinned $(version)-newest)) 3.11-oldest)
CONSTRAINT_pinned := --constraint constraints.txt
CONSTRAINT_oldest := --constraint constraints-oldest.txt

# The markers of pyproject.toml for tests that `make test` leaves out.
SLOW_TESTS := services or e2e or faults or docs or recovery
# More processes than the two cores of CI, because many tests wait: for a server, a browser or a retry.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
# With COVERAGE=1, `make test` also measures branch coverage, which takes half as long again.
COVERAGE ?=
# What `make check` calls changed: what differs from this commit.
SINCE ?= HEAD
# The tests of a changed package, and changed tests.
CHANGED_TESTS = { git diff --name-only --diff-filter=d $(SINCE); git ls-files --others --exclude-standard; } | sed -nE \
	-e 's\#^later_reporting_dagster/([a-z]+)/.*\#tests/\1\#p' -e 's\#^(benchmarks)/.*\#tests/\1\#p' \
	-e '/^tests\/.*test_[a-z_]+[.]py$$/p' | sort -u

.PHONY: help demo ui test test-rest test-recovery check lint bench compatibility $(COMPATIBILITY) browser services pictures lock helm clean link

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: .venv/installed ## Fetch 100 days of synthetic data into .later-demo, roll it up, check it, and print a summary
	$(BIN)/later-reporting demo

ui: .venv/installed ## Run the demo, then serve the Dagster UI on its data at http://127.0.0.1:3000
	$(BIN)/later-reporting demo --ui

test: lint browser ## Run lint and the tests that need only Python and Chromium, in 7 minutes on two cores
	$(PYTEST) -n 3 -m "not ($(SLOW_TESTS))" $(if $(COVERAGE),--cov --cov-report=term) $(PYTEST_OPTIONS)

test-rest: .venv/installed-test services ## Run the other tests in 11 minutes: services, daemons, commands, faults, pages
	$(PYTEST) -n 4 -m "($(SLOW_TESTS)) and not recovery" $(PYTEST_OPTIONS)

test-recovery: .venv/installed-test services ## Break what a daemon works on, and wait until it has healed, in 15 minutes
	$(BIN)/python -m pytest -m recovery $(PYTEST_OPTIONS)

check: lint ## Run lint, and the tests of packages that differ from the last commit, or from SINCE=main
	@tests=$$($(CHANGED_TESTS)); [ -z "$$tests" ] || \
		$(PYTEST) -n 3 -q -m "not ($(SLOW_TESTS))" $(PYTEST_OPTIONS) $$tests

lint: .venv/installed-test .venv/installed-lint ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-bench .venv/installed-test ## Measure requests and time; WORKLOADS=… selects some
	$(BIN)/python -m benchmarks $(WORKLOADS)

compatibility: $(COMPATIBILITY) ## Run the demo and the tests of the layers on each Python in PATH, with pinned, oldest and newest dependencies

# For example compatibility-3.12-newest. Other versions than the pinned ones may warn, which is no failure.
$(COMPATIBILITY): compatibility-%:
	python$(firstword $(subst -, ,$*)) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
		$(CONSTRAINT_$(lastword $(subst -, ,$*))) --editable '.[test]'
	.venv-$*/bin/later-reporting demo --directory .venv-$*/demo
	.venv-$*/bin/python -m pytest -q -n 2 --dist loadfile -o filterwarnings=default -m "not ($(SLOW_TESTS))" $(LAYERS)

browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$as_root apt-get update -qq && $$as_root apt-get install -y -qq chromium; }

services:
	@(for name in curl docker-compose jq npm pkill tini; do command -v $$name || exit 1; done; \
		ls /usr/lib/postgresql/*/bin/initdb) >/dev/null 2>&1 || { \
		as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); node=$$(command -v npm >/dev/null || echo nodejs npm); \
		$$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends \
			curl docker-compose jq postgresql procps tini $$node; }
	@[ -e .services/node_modules/azurite ] || npm install --loglevel=error --no-save --prefix .services azurite@$(AZURITE_VERSION)
	@[ -e .services/dbt/bin/dbt ] || { $(PYTHON) -m venv .services/dbt && \
		.services/dbt/bin/python -m pip install --quiet --disable-pip-version-check $(DBT); }

pictures: .venv/installed-test browser ## Run the demo, and take the pictures of the documentation anew
	$(BIN)/python docs/images/take.py

lock: .venv/bin/python ## Write deploy/requirements.txt for the image: the versions of constraints.txt with hashes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	printf 'hatchling\nhatch-fancy-pypi-readme\n' | $(BIN)/uv pip compile --quiet - pyproject.toml \
		$(addprefix --extra ,azure gcs k8s plus postgres s3) --constraint constraints.txt --generate-hashes \
		--no-annotate --no-header --python-version 3.13 --python-platform linux --output-file deploy/requirements.txt

helm: ## Check deploy/values.yaml against the schema of Dagster's Helm chart; requires helm and the internet
	helm template dagster dagster --repo https://dagster-io.github.io/helm --values deploy/values.yaml \
		--version $$(sed -n 's/^dagster==//p' constraints.txt) >/dev/null

clean: ## Remove the virtual environments and the demo
	rm -rf .venv .venv-* .later-demo

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 to 3.14 not found: install one, or name it with PYTHON=…" >&2; exit 1; }
	@[ -w . ] || { echo "You cannot write to this folder: clone the repository into one of yours" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "This Python cannot create a virtual environment: on Debian and Ubuntu, apt-get install python3-venv" >&2; \
		rm -rf .venv; exit 1; }

# `pip install .` replaces the link to this folder by a copy of the package.
EDITABLE := $(shell grep -ls '"editable": true' .venv/lib/*/site-packages/later_reporting_dagster-*/direct_url.json)

.venv/installed: .venv/bin/python pyproject.toml constraints.txt $(if $(EDITABLE),,link)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/installed-test .venv/installed-lint .venv/installed-bench: .venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	@touch $@
