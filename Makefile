# Two commands on a fresh machine: `make demo` and `make test`. Each makes the environments it needs.
PYTHON ?= python3

NEWEST := .venv/newest/bin
OLDEST := .venv/oldest/bin

.PHONY: demo test test-newest test-oldest check bench clean

demo: .venv/newest/ready
	$(NEWEST)/ctspine1k demo

# Two at a time, each told whole: the environments, then the two suites.
test:
	$(MAKE) --jobs 2 --output-sync=target .venv/newest/ready .venv/oldest/ready
	$(MAKE) check
	$(MAKE) --jobs 2 --output-sync=target test-newest test-oldest

check: .venv/newest/ready
	$(NEWEST)/ruff format --check --diff .
	$(NEWEST)/ruff check .
	$(NEWEST)/mypy

test-newest: .venv/newest/ready
	$(NEWEST)/pytest

test-oldest: .venv/oldest/ready
	$(OLDEST)/pytest

# tests/newest.txt and tests/oldest.txt say which releases; all else is in pyproject.toml.
.venv/%/ready: tests/%.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv/$*
	.venv/$*/bin/python -m pip install --quiet --editable '.[dev]' --constraint tests/$*.txt
	touch $@

bench: .venv/newest/ready
	$(NEWEST)/python benchmarks/conversion.py --out benchmarks/results

clean:
	rm -rf .venv build dist
