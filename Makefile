# `make demo` and `make test` do all the set-up themselves, in .venv, with plain pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := $(BIN)/ovsam label examples/ --vocab examples/names.txt --model tiny --previews all \
	--min-region 150 --restart

.PHONY: demo test parity clean

demo: $(VENV)/.installed
	@echo "== boxes and points drawn by hand (examples/prompts.json)"
	@$(DEMO) --prompts examples/prompts.json --out demo-output/prompts
	@echo "== no prompts: a grid of 16 x 16 points"
	@$(DEMO) --grid 16 --min-stability 0.6 --out demo-output/grid
	@echo "COCO files and overlay pictures:"
	@ls demo-output/*/annotations.json demo-output/*/previews/*.jpg

test: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/check

parity: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m parity tests/model

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo-output build dist .mypy_cache .ruff_cache .pytest_cache
