# `make run` and `make test` work on a fresh machine: they make .venv and install the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test test-fast test-exhaustive lint install clean

run: install
	$(BIN)/lightning-fed run

test: install
	$(BIN)/python -m pytest

test-fast: install
	$(BIN)/python -m pytest -m "not slow"

# Minutes; goes on where it was interrupted.
test-exhaustive: install
	$(BIN)/python -m pytest tests/secagg/exhaustive.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,export,notebooks]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info
