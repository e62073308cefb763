# Every command of the project. `make help` lists them; CI calls the same ones.
# Needs Python >= 3.11, git, make and a package index. The first command sets up .venv by itself.

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ROUNDS := 20
SECONDS := 60
SHARDS := 8
CACHE := 0
LOCK_PYTHON := python3.11

# Also the build of the project's own package. Older versions of pip read the first alone.
CONSTRAINED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt

# Recursive (=), so that the search only runs when the virtual environment must be made.
PYTHON = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && { command -v $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help venv lock proto proto-check buf fmt lint types check test test-unit test-integration \
	test-e2e test-fault fault chaos demo bench bench-paired endurance dev clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## Make .venv with everything in it (repeated only when what it is to have changes)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || test -n "$(PYTHON)" || { \
		echo "error: found no Python >= 3.11 (tried python3, python3.14 .. python3.11);" \
			"install one or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(PY) || { echo "setting up $(VENV) (about a minute, once)" >&2; \
		"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }; }
	@$(CONSTRAINED) $(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

lock: ## Write constraints.txt: the newest versions that pyproject.toml allows, for Python 3.11
	@"$(LOCK_PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "error: the lock is made by Python 3.11: make lock LOCK_PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	"$(LOCK_PYTHON)" -m venv "$$folder" && \
	"$$folder/bin/python" -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		> "$$folder/build.txt" && \
	"$$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade \
		--upgrade-strategy eager --requirement "$$folder/build.txt" --editable '.[dev,containers]' && \
	{ echo '# The versions that make and CI install. Written by make lock, with Python 3.11, the oldest'; \
		echo '# that is supported; newer ones take the same versions.'; \
		"$$folder/bin/python" -m pip freeze --all --exclude-editable --exclude pip; } \
		> "$$folder/constraints.txt" && \
	cp "$$folder/constraints.txt" constraints.txt

proto: $(STAMP) ## Generate proto/gen from proto/aetheris
	@sh proto/generate.sh $(VENV)/bin proto/gen

proto-check: $(STAMP) ## Fail if proto/gen is stale
	@sh proto/generate.sh --check $(VENV)/bin proto/gen

buf: $(STAMP) ## Lint the protos, check their format and their compatibility with main
	@sh proto/buf.sh $(VENV)/bin

fmt: $(STAMP) ## Mend what ruff can mend; format Python and the protos
	@$(VENV)/bin/ruff check --fix --quiet
	@$(VENV)/bin/ruff format --quiet
	@$(VENV)/bin/buf format --write

lint: $(STAMP) ## Ruff (lint, format) and the import rules
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet
	@$(VENV)/bin/lint-imports --no-logo

types: $(STAMP) ## Pyright
	@$(VENV)/bin/pyright --warnings

check: lint types buf proto-check ## All static checks

test: $(STAMP) ## Set up what is missing and run the tests (ARGS='-k name' passes options on)
	@$(PY) -m pytest $(ARGS)

test-unit: $(STAMP) ## Those that need no store
	@$(PY) -m pytest tests/unit tests/replay $(ARGS)

test-integration: $(STAMP) ## Those with a real Postgres and Redis, in one process
	@$(PY) -m pytest tests/integration $(ARGS)

test-e2e: $(STAMP) ## Those with real servers, workers and clients
	@$(PY) -m pytest tests/e2e $(ARGS)

test-fault: $(STAMP) ## Those that kill, cut and pause, once
	@$(PY) -m pytest -m fault $(ARGS)

fault: $(STAMP) ## The tests that kill, cut and pause, again and again (ROUNDS=20)
	@for round in $$(seq $(ROUNDS)); do \
		echo "round $$round of $(ROUNDS)"; $(PY) -m pytest -q -x -m fault $(ARGS) || exit 1; done

chaos: $(STAMP) ## Load while everything fails, then an audit (SEED=n repeats; SECONDS, SHARDS, CACHE)
	@$(PY) -m tests.fault.chaos --seed=$(SEED) --seconds=$(SECONDS) --shards=$(SHARDS) \
		--cache=$(CACHE) $(ARGS)

demo: $(STAMP) ## Watch a real job survive kill -9 of its worker and its server
	@$(PY) -m examples.census.demo $(ARGS)

bench: $(STAMP) ## Measure the simple workflow
	@$(PY) -m tests.bench $(ARGS)

bench-paired: $(STAMP) ## Measure this version beside another one (BASE=folder, with a .venv in it)
	@$(PY) -m tests.bench.paired $(BASE) $(ARGS)

endurance: $(STAMP) ## Measure a server that has run 40,000 workflows and holds 20,000 more
	@$(PY) -m tests.bench.endurance $(ARGS)

dev: $(STAMP) ## A server with its own Postgres and Redis, for development
	@$(VENV)/bin/aetheris-server dev $(ARGS)

clean: ## Remove .venv and the caches
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
