# Two commands are the whole set-up: `make gate` and `make test`. Each makes .venv from the lock if it is not there.
PYTHON ?= $(or $(shell command -v python3.11),python3)
BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: gate test lint types witness lock clean

gate: $(STAMP)
	$(BIN)/paraflax gate

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/pyright

# Needs the extra `witness`: torch for CPU and transformers, installed beside the lock.
witness: $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[witness]" --no-build-isolation
	$(BIN)/python -m parity_tests.witness.record

# Renews the lock. No index address and no machine path may enter it.
lock:
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
	    --no-header --no-annotate --output-file requirements.lock

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf .venv .paraflax
