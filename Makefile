# `make run` and `make test` set themselves up on a fresh machine with Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
READY := .venv/ready

run: $(READY)
	.venv/bin/roads run

test: $(READY)
	.venv/bin/python -m pytest --numprocesses 2 --dist worksteal

# The tests that take minutes each; tests/soak/RESULT.md keeps what came of them.
soak: $(READY)
	.venv/bin/python -m tests.soak

bench: $(READY)
	.venv/bin/python -m tests.bench

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# torch first, with its dependencies: they differ between machines with and without a GPU, and a lock cannot say so.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: run test soak bench lint
