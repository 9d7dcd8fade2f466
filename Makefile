# Every target works from a bare clone with Python (>= 3.11) and make alone.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Another interpreter gets an environment of its own, so lanes do not disturb each other.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
CONFIG ?= experiments/configs/quickstart.py
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')

.PHONY: sweep test test-optimized test-ray lint notebooks check-kernels format clean

sweep: $(VENV)/.experiments
	$(BIN)/python -m gnomon.experiments.sweep --config=$(CONFIG) --workdir=$(WORKDIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

# With XLA's optimizations, which the other tests leave out to compile in half the time.
OPTIMIZED = tests/optimizers tests/kernels
test-optimized: $(VENV)/.test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -q -n $(JOBS) \
	    --dist worksteal $(or $(ARGS),$(OPTIMIZED))

# Ray is large and slow to start: it has an environment, and a test, of its own.
test-ray:
	$(MAKE) VENV=.venv-ray .venv-ray/.test .venv-ray/.ray
	.venv-ray/bin/python -m pytest -q tests/experiments/fleet/test_ray.py $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes every notebook from its .py, then runs them all.
notebooks: $(VENV)/.test
	$(BIN)/python -m jupytext --quiet --update --to ipynb notebooks/*.py
	$(BIN)/python -m pytest -q -n $(JOBS) tests/test_notebooks.py $(ARGS)

# Compiles for TPUs and an H100 that need not be here; says what it skipped and why.
check-kernels: $(VENV)/.experiments
	$(BIN)/python benchmarks/check_kernels.py $(ARGS)

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/support/optimizers_stub.py
	$(BIN)/python tests/support/methods_table.py

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "gnomon needs Python 3.11 or newer; this is %s. Choose one with PYTHON=..." % sys.version'
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: a rerun installs nothing unless the requirements changed.
$(VENV)/.%: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv .venv-* build dist src/*.egg-info .hypothesis
