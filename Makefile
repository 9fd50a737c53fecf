.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= $(BIN)/pytest -n 2
SECONDS ?= 180
ITERATIONS ?= 5
JOBS ?= 10000

# Printed if the packages cannot be downloaded.
define NO_PACKAGES

make setup could not download its packages. You may have to set a variable. Set it, then run make setup again:
  SSL_CERT_FILE=/path/to/ca.pem     if a proxy inspects TLS: the certificates to trust, for pip and uv (PIP_CERT works as well)
  UV_SYSTEM_CERTS=1                 to make uv trust what the system trusts
  HTTPS_PROXY=http://proxy:3128     if you reach the internet through a proxy
  PIP_INDEX_URL, UV_DEFAULT_INDEX   a mirror of PyPI, for pip and for uv
endef
export NO_PACKAGES

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## build .venv with the command .venv/bin/sluice (hash-locked)

# pip and uv read the certificates from different variables: whichever is set is used for both.
ifneq ($(PIP_CERT)$(SSL_CERT_FILE),)
$(VENV)/.ready lock: export PIP_CERT := $(or $(PIP_CERT),$(SSL_CERT_FILE))
$(VENV)/.ready lock: export SSL_CERT_FILE := $(or $(SSL_CERT_FILE),$(PIP_CERT))
endif
$(VENV)/.ready: requirements/dev.txt requirements/uv.txt pyproject.toml sdk/python/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt \
	  && $(BIN)/uv pip sync -q --python $(BIN)/python requirements/dev.txt requirements/uv.txt; } \
	  || { printf '%s\n' "$$NO_PACKAGES" >&2; exit 1; }
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e sdk/python -e .
	@touch $@

lock: setup ## resolve the dependencies again
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --no-emit-package sluice-client pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --no-emit-package sluice-client --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt

demo: setup ## run the main job end to end, and show it
	$(BIN)/python -m app.cli.demo

up: setup ## serve on 127.0.0.1:8080, with its own Postgres in .sluice
	$(BIN)/sluice up

seed: setup ## fill a running service with believable data; without one, start it (ARGS="--json", SLUICE_URL, SLUICE_KEY)
	$(BIN)/python -m app.cli.seed $(ARGS)

psql: setup ## open psql on the database of the sluice that runs here (SLUICE_DATA_DIR), or on SLUICE_DATABASE_URL
	@$(BIN)/python -m app.cli.psql $(ARGS)

test: setup ## run the tests on the embedded Postgres
	$(PYTEST)

# what a pure function, a loop or a route can break, and no other process
test-fast: setup ## run the tests of the domain, the engine and one file of the wire: under half a minute
	$(PYTEST) tests/domain tests/engine tests/wire/test_enqueue.py

fuzz: setup ## send a replica valid and invalid requests, generated from the OpenAPI document
	$(BIN)/pytest -n 0 -s -m fuzz tests/fuzz

check: setup ## check lint, types, import contracts and generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 sdk/python/sluice_client
	$(BIN)/lint-imports
	$(BIN)/python -m app.cli.openapi --check
	$(BIN)/python -m app.cli.reference --check
	$(BIN)/python -m app.cli.sdk --check

bench: setup ## measure Sluice's speed, beside a bare loop (ITERATIONS=1: the smallest form; ARGS="--only limits,bulk", "--long --large")
	$(BIN)/python -m bench $(ARGS)

bench-peers: setup build/peers/.ready ## compare Sluice with other queues (ITERATIONS=5, JOBS=10000, ARGS="--only sluice,bullmq")
	$(BIN)/python -m bench.peers --iterations $(ITERATIONS) --jobs $(JOBS) $(ARGS)

build/peers/.ready: bench/peers/install bench/peers/requirements.txt bench/peers/package-lock.json
	bench/peers/install $(BIN)/uv $(BIN)/python
	@touch $@

chaos-schedules: setup ## kill, pause and restart replicas under 300 schedules, and count what fired (SECONDS=180)
	$(BIN)/python -m bench.chaos --seconds $(SECONDS)

chaos-limits: setup ## kill, pause and restart replicas while limits change, and judge every admission (SECONDS=180)
	$(BIN)/python -m bench.chaos.limits --seconds $(SECONDS)

sqs-suites: setup ## run the SQS tests of moto and kombu against the SQS wire, and write docs/reference/sqs-suites.md
	$(BIN)/python -m tests.compat.suites

screenshots: setup ## take the pictures of the README (needs Debian's chromium)
	$(BIN)/python -m tests.ui.screenshots

openapi: setup ## generate openapi/openapi.json from the code, and the Python client from it
	$(BIN)/python -m app.cli.openapi
	$(BIN)/python -m app.cli.sdk

reference: setup ## generate docs/reference from the code
	$(BIN)/python -m app.cli.reference

.PHONY: help setup lock demo up seed psql test test-fast fuzz check bench bench-peers chaos-schedules chaos-limits sqs-suites screenshots openapi reference
