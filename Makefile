# Two commands matter: `make run` and `make test`. They need Python 3.11+ with venv, and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
UV ?= uv
PORT ?= 8000
export PORT
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python shows output as it comes, and keeps what it has compiled: the tests start hundreds of
# processes, each of which would compile the whole site.
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE

# A version manager may leave names on the PATH that do not run: each is tried.
SUITABLE := -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	if $$name $(SUITABLE) 2>/dev/null; then command -v $$name; break; fi; done)

.PHONY: help run test chaos crash-points bench e2e screenshots api-reference check messages lock clean FORCE

help:
	@echo "make run    start the site with everything it needs; PORT=8000 unless given"
	@echo "make test   run the tests, without a browser"
	@echo "make e2e    run the tests in a browser"
	@echo "make chaos  kill, freeze, cut and flush for ten minutes; SEED=7 repeats a run"
	@echo "make bench  measure; NAME=limits runs one, QUICK=--quick a short version"
	@echo "make screenshots  renew the pictures in docs/images"
	@echo "make api-reference  renew docs/api.md from the code"
	@echo "make check  lint, types, import contracts, migrations, deployment checks"
	@echo "make messages  renew the texts to translate, and compile them (needs gettext)"
	@echo "make lock   renew requirements/ from pyproject.toml (needs uv)"
	@echo "make clean  remove the environment and caches; var/ with your data stays"

run: $(VENV)/run.stamp
	@exec $(BIN)/python manage.py up

# Many tests wait for real processes, so three more of them than cores run at a time; each has a
# database of its own among the 16 of a Redis, from the ninth on. The longest tests go first.
TEST_PROCESSES ?= $(shell $(PYTHON) -c "import os; print(min(6, 3 + (os.cpu_count() or 1)))")
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal --ignore tests/e2e tests/integration tests
	$(BIN)/python -m tests.services -n $(TEST_PROCESSES) --dist worksteal tests/integration tests/queueadmin

e2e: $(VENV)/dev.stamp
	@command -v chromium >/dev/null 2>&1 \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 \
			&& apt-get update -q && apt-get install -qy --no-install-recommends chromium; } \
		|| { echo "The browser tests need Chromium. Install it, for instance: sudo apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e

screenshots: $(VENV)/dev.stamp
	$(BIN)/python -m tests.e2e.screenshots

SEED ?= $(shell date +%s)
MINUTES ?= 10
DATABASE ?= postgresql
BROKER ?= redis
chaos: $(VENV)/dev.stamp
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --database $(DATABASE) \
		--broker $(BROKER)

crash-points: $(VENV)/dev.stamp
	CRASH_POINTS=all $(BIN)/python -m pytest -q tests/integration/test_crash_points.py

# Those that need millions of rows, lists, recovery, scale and statistics, only by their names.
NAME ?= drain enqueue latency limits memory outcomes priority schedule web
bench: $(VENV)/dev.stamp
	@for name in $(NAME); do \
		$(BIN)/python -m benchmarks $$name $(QUICK) --folder build/bench || exit 1; done
	@echo "Charts and results with the facts of this machine are in build/bench."

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@mkdir -p build/check
	DATA_DIR=build/check DEBUG=1 HTTPS=0 $(BIN)/python manage.py makemigrations --check --dry-run
	@DATA_DIR=build/check DEBUG=0 HTTPS=1 \
		SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(60))')" \
		$(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python -m pytest -q tests/architecture

api-reference: $(VENV)/dev.stamp
	$(BIN)/python -m tests.api_reference > docs/api.md

# `--universal`: one file for every system and Python; the options leave out every address.
LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --extra site
messages: $(VENV)/dev.stamp
	DEBUG=1 HTTPS=0 $(BIN)/python manage.py makemessages --locale de --no-location --no-wrap \
		--no-obsolete $(foreach name,queueadmin tests benchmarks var build .venv,--ignore "$(name)/*")
	DEBUG=1 HTTPS=0 $(BIN)/python manage.py compilemessages --ignore .venv

lock:
	$(LOCK) --output-file requirements/run.txt
	$(LOCK) --group dev --output-file requirements/dev.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than the requirements only when their installation has succeeded; an
# environment whose Python is gone (moved, upgraded) is made anew.
ifneq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),1)
$(VENV)/run.stamp $(VENV)/dev.stamp: FORCE
endif
FORCE:

$(VENV)/%.stamp: requirements/%.txt
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) $(SUITABLE) 2>/dev/null; then \
		echo "This needs Python 3.11 or newer with its venv module; $(or $(PYTHON),no python on the PATH) is none." >&2; \
		echo "Install one (on Debian: apt install python3 python3-venv) or name it: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing $< into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement $< \
		|| { echo "The packages could not be installed; the lines above say why. Without a network only the first time fails." >&2; exit 1; }
	@touch $@
