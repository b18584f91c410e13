# `make demo` and `make test` do all the set-up themselves, in .venv, with plain pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test parity clean

demo: $(VENV)/.installed
	$(BIN)/ovsam demo-run

test: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/check

parity: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m parity tests/model

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo-output build dist .mypy_cache .ruff_cache .pytest_cache
