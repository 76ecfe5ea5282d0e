# Each target creates the environment that it needs from Python 3.10 to 3.14
# (the pinned torch has no newer wheels).
PYTHON ?= python3
# Tests of a file stay together, as they share what is made for them; a worker
# without tests takes some of the other, and one that crashes is told of.
PYTEST_ARGS ?= -n 2 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
# Stamp files, written last: an interrupted step has none, so it runs again.
LOCKED := $(VENV)/.requirements-installed
READY := $(VENV)/.package-installed

RECIPE := recipes/ESC50/interpret
SEED := 1234
RUN := cd $(RECIPE) && "$(CURDIR)/$(BIN)/python"

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs reproduce clean

help:
	@echo "make demo   make scenes, train, explain: writes $(RECIPE)/results"
	@echo "make test   run the tests         (PYTEST_ARGS='$(PYTEST_ARGS)')"
	@echo "make reproduce   compute the tables in docs/ again, and compare (hours)"
	@echo "make lint   check style: ruff, imports, types, yamllint, codespell"
	@echo "make docs   make the site: docs/_build/html/index.html (runs the notebooks)"
	@echo "make clean  delete $(VENV) and caches, keep results"
	@echo "Each target first creates the environment $(VENV) with PYTHON=$(PYTHON)."

$(LOCKED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || { \
	    echo "error: $(PYTHON): found $$($(PYTHON) --version 2>&1)," \
	        "expected 3.10 to 3.14: make PYTHON=/path/to/python3"; \
	    exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON): found no modules ensurepip and venv," \
	        "expected both to make $(VENV): on Debian or Ubuntu run" \
	        "apt install python3-venv, then make again"; \
	    exit 1; } >&2
	@echo "creating $(VENV) with the pinned packages, this takes minutes"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(READY): $(LOCKED) setup.cfg pyproject.toml lmac_sb/__init__.py
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(READY)
	$(RUN) train_lmac.py hparams/lmac.yaml
	$(RUN) train_lmac.py hparams/lmac_ft.yaml --pretrained_interpreter results/lmac/$(SEED)
	$(RUN) eval.py hparams/eval.yaml --experiment_name demo_eval --n_clips 20 \
	    --interpreters '{lmac_ft: results/lmac_ft/$(SEED)}' \
	    --methods '[lmac, lmac+5, lmac_ft, gradcam, ideal, ones, random, loudest]' \
	    --settings '[clean, mixture paper]' --shares '[0.05, 0.2]'
	rm -rf $(RECIPE)/results/model
	$(BIN)/lmac export $(RECIPE)/results/lmac/$(SEED) $(RECIPE)/results/model
	$(BIN)/lmac report $(RECIPE)/results/lmac/$(SEED)/interpretations/test
	@echo "next: $(BIN)/lmac explain $(RECIPE)/results/model/example/*/original.wav" \
	    "--model $(RECIPE)/results/model --out explained"
	@echo "next: $(BIN)/lmac report explained"
	@echo "next: $(BIN)/lmac try"

# One thread for each worker, since more would compete for the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/yamllint .
	$(BIN)/codespell

# Each page is made anew; a warning fails the build.
docs: $(READY)
	rm -rf docs/_api docs/_build
	cd docs && PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
	    "$(CURDIR)/$(BIN)/python" -m sphinx -q -W --keep-going . _build/html

reproduce: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/reproduce.py

clean:
	rm -rf $(LOCKED) $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache \
	    .hypothesis docs/_api docs/_build
	find lmac_sb recipes tests -type d -name __pycache__ -prune -exec rm -rf {} +
