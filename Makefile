# `make run` and `make test` work on a fresh machine: they make .venv and install the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two at a time; tests that start Ray follow one another (tests/conftest.py).
TEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

.PHONY: run test test-fast test-exhaustive lint install clean

run: install
	$(BIN)/lightning-fed run

test: install
	$(TEST)

test-fast: install
	$(TEST) -m "not slow"

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
