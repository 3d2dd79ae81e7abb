# `make run` and `make test` set themselves up on a fresh machine with Python 3.11, the version that pyproject.toml names.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
READY := .venv/ready
PIP := .venv/bin/pip install --quiet --disable-pip-version-check

run: $(READY)
	.venv/bin/roads run

# Before every commit: a minute. What is slow is said in tests/conftest.py.
check: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

test: $(READY)
	.venv/bin/python -m pytest --numprocesses 2 --dist worksteal

# The tests that take minutes each; tests/soak/RESULT.md keeps what came of them.
soak: $(READY)
	.venv/bin/python -m tests.soak

bench: $(READY)
	.venv/bin/python -m tests.bench

# Only files whose hash is in the lock: setuptools first, as what comes as source is built by it, then the rest, then torch
# with what its build brings (for a GPU: CUDA), since that differs between machines and a lock cannot say so.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; found = "%d.%d" % sys.version_info[:2]; found == "3.11" or sys.exit("error: $(PYTHON) is Python " + found + ", and only 3.11 is tested: install that, or say where it is with make PYTHON=/path/to/python3.11.")'
	$(PYTHON) -m venv .venv
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > .venv/builder.txt
	sed '/^torch==/d' requirements.lock > .venv/hashed.txt
	$(PIP) --no-deps --require-hashes -r .venv/builder.txt
	$(PIP) --no-deps --require-hashes --no-build-isolation -r .venv/hashed.txt
	$(PIP) $$(grep '^torch==' requirements.lock)
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

.PHONY: run check test soak bench
