# Everything runs in .venv, which is made on first use from the pinned versions.
PYTHON ?= python3
BIN := .venv/bin
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --non-interactive)
WEB := hemaml/serve/web
DEMO := $(if $(HEMAML_DATA),smgnn,smgnn_smears)

.PHONY: demo test bench stack page install bohb browser database compose clean
demo: .venv/installed  ## a sweep with its results in MLflow; real images where HEMAML_DATA is set
	$(BIN)/hemaml sweep experiments/wbc_segmentation/$(DEMO).yaml --trials 8 --workers 2

test: .venv/installed bohb browser database compose page  ## all checks
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/hemaml check
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

bench: .venv/installed  ## timings, as ratios against peers in the same run
	$(BIN)/python -m pytest tests/benchmarks -s

stack: .venv/installed database  ## PostgreSQL, MLflow with users, Ray and optuna-dashboard; Ctrl-C ends them
	$(BIN)/python docker/stack.py $(or $(FOLDER),mlruns/stack)

page:  ## the page of `hemaml serve`, checked, tested and built; needs Node 20 or newer
	@if command -v npm >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; then \
	  cd $(WEB) && npm ci --silent && npm run --silent check && npm test --silent && npm run --silent build; \
	else echo "Node 20 or newer is absent: the page of hemaml serve is not built. Tests of it are" \
	  "skipped, and fail where CI is set." >&2; fi

install: .venv/installed
.venv/installed: pyproject.toml docker/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint docker/constraints.txt --editable ".[dev]"
	touch $@

bohb: .venv/installed  ## BOHB's own package, a part of which is compiled
	@$(BIN)/python -c "import hpbandster" 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --constraint docker/constraints.txt --editable ".[bohb]" \
	  || echo "BOHB's package cannot be installed here: its tests are skipped, and fail where CI" \
	    "is set. It asks for a C compiler and Python's headers." >&2

browser:  ## Chromium, which tests of the MLflow UI look with
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || $(AS_ROOT) sh -c "apt-get update -qq && apt-get install -qq --yes chromium" \
	  || echo "Chromium is absent and apt-get cannot install it here: tests of the MLflow UI are" \
	    "skipped, and fail where CI is set. Ask for: apt-get install chromium" >&2

database:  ## PostgreSQL, which tests of sweeps on servers start
	@command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
	  || $(AS_ROOT) sh -c "apt-get update -qq && apt-get install -qq --yes postgresql" \
	  || echo "PostgreSQL is absent and apt-get cannot install it here: tests of servers are" \
	    "skipped, and fail where CI is set. Ask for: apt-get install postgresql" >&2

compose:  ## docker-compose, which a test of docker/compose.yaml asks; no engine
	@docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null \
	  || $(AS_ROOT) sh -c "apt-get update -qq && apt-get install -qq --yes --no-install-recommends docker-compose" \
	  || echo "docker-compose is absent and apt-get cannot install it here: a test of docker/compose.yaml is" \
	    "skipped, and fails where CI is set. Ask for: apt-get install docker-compose" >&2

clean:
	rm -rf .venv build *.egg-info
