# Everything here sets itself up: `make demo` and `make test` work from a bare checkout.
#
#   make demo      train the virtual arm to reach, through the real processes, wire and serial protocol; 5 to 10 minutes, installation included
#   make test      unit, contract, fault and end-to-end tests
#   make test-all  the same and the slow ones
#   make lint      ruff, clang-format, mypy, import contracts
#   make setup     the virtual environment alone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo setup lint test test-all clean

demo: $(STAMP)
	$(BIN)/robotsac train --robot arm0-twin --steps 16000 --until-success 0.96

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror robotsac/learner/backends/native/*.h robotsac/learner/backends/native/*.cpp tests/unit/*.cpp
	$(BIN)/mypy
	$(BIN)/lint-imports

# A worker per core, and one more for what mostly waits; how they share them is in tests/conftest.py.
PYTEST = $(BIN)/python -m pytest --numprocesses $$(($$(nproc) + 1)) --dist loadgroup

test: $(STAMP)
	$(PYTEST) -m 'not slow'

test-all: $(STAMP)
	$(PYTEST)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
