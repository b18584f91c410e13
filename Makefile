# `make demo` and `make test` do all the set-up themselves, in .venv, with plain pip.
PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := $(BIN)/ovsam label examples/ --vocab examples/names.txt --model tiny --previews all \
	--min-region 150 --restart

# What the bundled model is rebuilt in; kept by `make clean`, for it takes hours to make.
TINY ?= build/tiny
BPY := bpy>=5.0.1,<6

.PHONY: demo test test-slow test-demo test-ray docs parity interop train-smoke train-tiny clean

demo: $(VENV)/.installed
	@echo "== boxes and points drawn by hand (examples/prompts.json)"
	@$(DEMO) --prompts examples/prompts.json --out demo-output/prompts
	@echo "== no prompts: a grid of 10 x 10 points"
	@$(DEMO) --grid 10 --out demo-output/grid
	@echo "COCO files and overlay pictures:"
	@ls demo-output/*/annotations.json demo-output/*/previews/*.jpg

test: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/check

# What takes too long for every change: more faults, every row of the benchmarks, random sizes.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow --ignore tests/demo --ignore tests/training tests

# The page of `ovsam demo` in a real browser: Debian's chromium, driven by playwright.
test-demo: $(VENV)/.installed-dev
	@$(PIP_INSTALL) 'playwright>=1.50'
	$(BIN)/python -m pytest -m "slow or not slow" tests/demo

# The documentation as pages in build/site; a link that leads nowhere fails.
docs: $(VENV)/.installed
	@$(PIP_INSTALL) -e '.[docs]'
	$(BIN)/python scripts/make_cli_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

parity: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m parity tests/model tests/evaluation

# Our files in the programs that people use; writes docs/interop.json and the tables made from it. Its
# environment is one of its own (5 GB: some of these programs hold numpy and Pillow at older versions).
interop: $(INTEROP)/.installed
	@mkdir -p build
	OVSAM_INTEROP_REPORT=build/interop.json $(INTEROP)/bin/python -m pytest -q -m interop -W ignore \
		-p no:cacheprovider tests/interop
	$(INTEROP)/bin/python scripts/write_interop_table.py build/interop.json

# A cluster of two processes on this machine, one killed in the middle.
test-ray: $(VENV)/.installed-dev
	@$(PIP_INSTALL) -e '.[ray]'
	$(BIN)/python -m pytest -m ray tests/labelling/test_ray.py

# Every training stage for a few steps, with two processes, kills and the trained model's labels.
train-smoke: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or not slow" --durations=0 tests/training/test_train_smoke.py

# Scenes, masks, names: killed and run again it goes on. Settings: scripts/train-tiny.
train-tiny: $(VENV)/.installed-scenes
	@TINY="$(TINY)" PYTHON="$(CURDIR)/$(BIN)/python" OVSAM="$${OVSAM:-$(CURDIR)/$(BIN)/ovsam}" \
		bash scripts/train-tiny

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(INTEROP)/.installed: tests/interop/requirements.txt
	@echo "Installing into $(INTEROP) (some 5 GB)"
	@[ -x $(INTEROP)/bin/python ] || $(PYTHON) -m venv $(INTEROP)
	@$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

# Blender's bpy asks for an old numpy and runs with a new one, so it comes without its wishes.
$(VENV)/.installed-scenes: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PIP_INSTALL) -e '.[scenes]'
	@[ "$(N_RENDERED)" = 0 ] || [ -n "$(RENDER)" ] || $(PIP_INSTALL) --no-deps '$(BPY)' || \
		{ echo "No bpy for this Python: see docs/training.md, The bundled model"; exit 1; }
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo-output $(filter-out build/tiny,$(wildcard build/*)) dist .mypy_cache .ruff_cache .pytest_cache
