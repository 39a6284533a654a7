# Everything runs in .venv, which is made on first use from the pinned versions.
PYTHON ?= python3
BIN := .venv/bin
DEMO := $(if $(HEMAML_DATA),smgnn,smgnn_smears)

.PHONY: demo test bench install clean
demo: .venv/installed  ## a sweep with its results in MLflow; real images where HEMAML_DATA is set
	$(BIN)/hemaml sweep experiments/wbc_segmentation/$(DEMO).yaml --trials 8 --workers 2

test: .venv/installed  ## all checks
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/hemaml check
	$(BIN)/python -m pytest

bench: .venv/installed  ## timings, as ratios against peers in the same run
	$(BIN)/python -m pytest tests/benchmarks -s

install: .venv/installed
.venv/installed: pyproject.toml docker/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint docker/constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
