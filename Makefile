# What a developer types. `demo` and `test` are one plain shell line each, to be copied where there is no make.
.PHONY: demo test dev check coverage format bench sim

demo:
	python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/coordctl demo

test:
	python3 -m venv .venv && .venv/bin/pip install '.[dev]' && .venv/bin/pytest -q

# An installation that follows the source while you edit it. `demo` and `test` put the built package in its place.
dev:
	python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'

# These run in whatever .venv there is, and look at the source, not at what is installed.
check: | .venv/bin/lint-imports
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	PYTHONPATH=coordd:agent:cli .venv/bin/lint-imports --no-cache --no-logo

# Every branch of raft/ and state/, by their own tests alone: what fails here needs a test that would notice its absence.
coverage: | .venv/bin/lint-imports
	.venv/bin/coverage erase
	COORDD_LAB_SEEDS=1 .venv/bin/coverage run -m pytest -q tests/raft tests/scenarios tests/state $(ARGS)
	.venv/bin/coverage combine -q
	.venv/bin/coverage report

format: | .venv/bin/lint-imports
	.venv/bin/ruff check --select I --fix
	.venv/bin/ruff format

# Options go into ARGS: make sim ARGS=--help
bench: | .venv/bin/lint-imports
	.venv/bin/python -m tests.bench.writes $(ARGS)

sim: | .venv/bin/lint-imports
	.venv/bin/python -m tests.sim $(ARGS)

.venv/bin/lint-imports:
	$(MAKE) dev
