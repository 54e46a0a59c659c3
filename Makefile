# Two commands on a fresh machine: `make demo` and `make test`. Each makes the environments it needs.
PYTHON ?= python3

# Tests start many processes: each would compile this package again.
unexport PYTHONDONTWRITEBYTECODE

NEWEST := .venv/newest/bin
OLDEST := .venv/oldest/bin
TORCH := $(if $(DATASETS),torch-$(DATASETS),bench)

# Tests that need what people train with, and those of packages that the environment of test-torch lacks.
WITH := $(wildcard tests/*/with_*.py)
ABSENT := %/with_nnunet.py %/with_peers.py $(if $(DATASETS),%/with_monai.py %/with_torchio.py)

.PHONY: demo quick test test-newest test-oldest test-torch test-training check bench chaos fuzz mutants clean

# The picture that the README shows, docs/preview.png, is the one that it makes.
demo: .venv/newest/ready
	rm -rf build/demo
	$(NEWEST)/ctspine1k demo --out build/demo

# The inner loop, below a minute: all tests but those that take long, on the newest packages.
quick: .venv/newest/ready
	$(NEWEST)/pytest --numprocesses 2 --dist worksteal -m "not slow and not processes and not cluster and not docs"

# Two at a time, each with its output in one piece: the environments, then the two suites.
test:
	$(MAKE) --jobs 2 --output-sync=target .venv/newest/ready .venv/oldest/ready
	$(MAKE) check
	$(MAKE) --jobs 2 --output-sync=target test-newest test-oldest

check: .venv/newest/ready
	$(NEWEST)/ruff format --check --diff .
	$(NEWEST)/ruff check .
	$(NEWEST)/mypy

# Tests that wait for processes leave a core to the others: two at a time of each suite.
test-newest: .venv/newest/ready
	$(NEWEST)/pytest --numprocesses 2 --dist worksteal

test-oldest: .venv/oldest/ready
	$(OLDEST)/pytest --numprocesses 2 --dist worksteal

# tests/newest.txt and tests/oldest.txt say which releases; all else is in pyproject.toml.
# PyTorch first and by its exact version: 2.13.0 has a build without CUDA, where a registry offers one. Again in the
# second call: the newest torchvision, which nnU-Net asks for, would replace it.
# "bench" has what the benchmarks compare with, "training" what tests/**/with_*.py need.
.venv/bench/ready .venv/training/ready: .venv/%/ready: tests/newest.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv/$*
	.venv/$*/bin/python -m pip install --quiet torch==2.13.0
	.venv/$*/bin/python -m pip install --quiet --editable '.[$*,dev]' torch==2.13.0 --constraint tests/newest.txt
	touch $@

.venv/torch-%/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv/torch-$*
	.venv/torch-$*/bin/python -m pip install --quiet torch==2.13.0
	.venv/torch-$*/bin/python -m pip install --quiet --editable '.[dev]' datasets==$*
	touch $@

.venv/%/ready: tests/%.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv/$*
	.venv/$*/bin/python -m pip install --quiet --editable '.[dev]' --constraint tests/$*.txt
	touch $@

bench: .venv/bench/ready
	.venv/bench/bin/python benchmarks/run.py --out benchmarks/results

# With another release of datasets: `make test-torch DATASETS=4.0.0`.
test-torch: .venv/$(TORCH)/ready
	.venv/$(TORCH)/bin/pytest tests/rows/test_streams.py $(filter-out $(ABSENT),$(WITH)) \
		"tests/test_docs.py::test_page[training.md]"

# TorchIO 2, a prerelease, to be imported in place of TorchIO 1, and what it needs besides.
.venv/torchio-2/ready: .venv/training/ready
	rm -rf .venv/torchio-2
	.venv/training/bin/python -m pip install --quiet --no-deps --target .venv/torchio-2 torchio==2.0.0a2 \
		docstring-parser loguru platformdirs torch-interpol typeguard tyro
	touch $@

# With what people train with, for real.
test-training: .venv/training/ready .venv/torchio-2/ready
	.venv/training/bin/pytest $(WITH) "tests/test_docs.py::test_page[training.md]"
	PYTHONPATH=.venv/torchio-2 .venv/training/bin/pytest tests/training/torchio_2.py

# Kills conversions, downloads, scans, exports and evaluations, at random moments and before changes of files, and fills their
# disk: the next run must leave what an undisturbed one leaves. One of them: `make chaos KILLS="100 --only scan"`.
chaos: .venv/newest/ready
	PYTHONPATH=tests $(NEWEST)/python -m support.killing $(KILLS)

# Reads inputs damaged at random: each must end in an error of ours or in right values. `make fuzz N=1000000`.
N ?= 100000
fuzz: .venv/newest/ready
	PYTHONPATH=tests $(NEWEST)/python -m support.fuzzing $(N)

# Runs a sample of faults, each made in a copy of the package, against the tests: those that no test notices are
# printed. `make mutants N=1000`. What is done where PyTorch is in use, only the environment of test-training sees.
mutants: N = 300
mutants: .venv/newest/ready
	PYTHONPATH=tests $(NEWEST)/python -m support.mutating $(N)

clean:
	rm -rf .venv build dist
