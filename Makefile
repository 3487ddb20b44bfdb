PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Torch's CPU build, unless pip has been told where to look.
ifeq ($(PIP_FIND_LINKS)$(PIP_INDEX_URL)$(PIP_EXTRA_INDEX_URL),)
export PIP_EXTRA_INDEX_URL := https://download.pytorch.org/whl/cpu
endif

.DEFAULT_GOAL := help
.PHONY: help env demo app test docs quality style clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s  %s\n", $$1, $$2 }' Makefile

env: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt diffscm_diffusers/version.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo 'Python 3.10 to 3.13 is needed, `$(PYTHON)` is none of them: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo '`$(PYTHON)` cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: env ## Draw counterfactuals of MNIST's digits, and of digits of two worlds beside the truth.
	$(BIN)/python examples/mnist_counterfactuals.py
	$(BIN)/python examples/typeface_counterfactuals.py
	$(BIN)/python examples/thickness_and_intensity.py
	$(BIN)/python examples/confounded_colour.py

app: env ## Open the page to try counterfactuals on, at http://127.0.0.1:7860.
	$(BIN)/python -m diffscm_diffusers.app

test: env ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadgroup

docs: env ## Build the documentation in build/docs; a warning is an error.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

quality: env ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: env ## Repair what Ruff can of style and formatting.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and what the tools leave behind.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
