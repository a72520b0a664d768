# What people, pre-commit and CI run. `make install` first makes .venv; the others do so themselves.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: install demo check test test-slow bench bench-gpu

install: $(VENV)/.installed

# The dependencies first and pinned, then the project itself, editable.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade pip
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(RUN)/python jobs/train.py

check: install
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/pytest -m 'not ray and not real and not slow'

test: install
	$(RUN)/pytest -m 'not slow'

test-slow: install
	$(RUN)/pytest -m slow --exitfirst

# The packages measured beside this one are an extra: pip install .[bench]
bench: install
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(RUN)/python -m benchmarks

bench-gpu: install
	$(RUN)/python -m benchmarks --only gpu
