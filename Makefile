# Two commands do all the set-up on a machine that has python3 and make:
#   make quickstart   the main job on embedded data, without a network once installed
#   make test         the tests, without the slow ones (make test-slow; in a small form: make test-small)
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: quickstart test test-small test-slow check benchmark clean

quickstart: $(INSTALLED)
	$(BIN)/heatline run quickstart

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not slow"

test-small: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "slow and not large"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(INSTALLED)
	$(BIN)/python tests/benchmarks/overhead.py

# uv installs in seconds what takes pip minutes; pip does where uv is not.
$(INSTALLED): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" .venv && \
		uv pip install --quiet --python $(BIN)/python -e ".[test]"; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"; \
	fi
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
