# make setup | test | demo | docs | lint; `make demo N=200` takes another number of held-out rows.
SHELL := /bin/bash
PYTHON_BIN := .venv/bin
N ?= 100

.DEFAULT_GOAL := help
.PHONY: help setup test demo docs lint
.NOTPARALLEL:

help:  ## Show the targets.
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup:  ## Make .venv and install everything.
	@bash scripts/setup.sh

test: setup  ## Run the tests; PYTEST='-k merge' narrows them.
	@bash scripts/setup_peers.sh
	@bash scripts/setup_extras.sh
	@bash scripts/run_tests.sh $(PYTEST)

demo: setup  ## Train, merge, serve and compare on a real model; N rows a task.
	@$(PYTHON_BIN)/python examples/demo.py --rows $(N)

docs: setup  ## Write what the pages take from the code, and build the site into site/.
	@$(PYTHON_BIN)/python scripts/build_docs.py
	@$(PYTHON_BIN)/mkdocs build --quiet

lint: setup  ## Linters, types and import contracts.
	$(PYTHON_BIN)/ruff check
	$(PYTHON_BIN)/ruff format --check
	$(PYTHON_BIN)/mypy
	$(PYTHON_BIN)/lint-imports
