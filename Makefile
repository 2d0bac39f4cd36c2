# Each target does all of its own set-up. Variables: PYTHON, PORT, WORKERS, ARGS.

PYTHON  ?= python3
PORT    ?= 8000
WORKERS ?= 2
ARGS    ?=

ROUNDS     ?= 5
SECONDS    ?= 4
JOBS       ?=
CONTENDERS ?=

BIN     := .venv/bin
READY   := .venv/.ready

BENCH_BIN   := .venv-bench/bin
BENCH_READY := .venv-bench/.ready

AT_ONCE := -n auto --maxprocesses $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install run test test-plain test-long prove test-clients coverage check format lock bench bench-install bench-lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(READY) ## set up .venv, test dependencies included

run: install ## serve http://127.0.0.1:8000 for development, with demo data (PORT=8000)
	$(BIN)/python -m src dev --port $(PORT)

test: install ## all tests (ARGS='-k orders' reaches pytest, WORKERS=2)
	@$(BIN)/python -m pytest $(AT_ONCE) $(ARGS)

test-plain: install ## the same tests, the longest left out and each on one database, with all that is there for speed alone switched off
	@TEST_SHORTCUTS=off TEST_DATABASES=either $(BIN)/python -m pytest -m "not long" $(AT_ONCE) $(ARGS)

test-long: install ## those with many rounds, all rounds of them: races, kills, demotions (an hour)
	@TEST_LONG=1 $(BIN)/python -m pytest -m 'long or rounds' $(AT_ONCE) $(ARGS)

# Servers that tests start are measured too (patch = subprocess); the report comes after a failure as well.
coverage: install ## all tests, and what none of them reached: half as long again
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(AT_ONCE) $(ARGS); result=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report; exit $$result

prove: install ## all claims in full, and docs/proofs.md: some hours (ARGS='--share 0.01 fuzz')
	@$(BIN)/python -m tests.prove $(ARGS)

test-clients: install ## a generated TypeScript client against the service (needs node)
	@if command -v node >/dev/null; then tests/clients/typescript/run; else echo 'node not found: skipped'; fi

check: install ## lint, format, types, walls
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: install ## write requirements.lock anew from pyproject.toml (ARGS=--upgrade takes newer versions)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header --no-emit-index-url \
		--quiet $(ARGS) -o requirements.lock

bench: bench-install ## measure against the floor and the peers, and write docs/benchmarks.md: 40 minutes (ROUNDS=5, SECONDS=4, JOBS=static,page, CONTENDERS=floor,ours)
	$(BENCH_BIN)/python -m bench all --rounds $(ROUNDS) --seconds $(SECONDS) --jobs '$(JOBS)' --contenders '$(CONTENDERS)'

bench-install: $(BENCH_READY)

bench-lock: install ## write bench/requirements.lock anew (ARGS=--upgrade takes newer versions of the peers)
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra bench --constraint requirements.lock --universal \
		--generate-hashes --no-header --no-emit-index-url --quiet $(ARGS) -o bench/requirements.lock

clean: ## remove what the other targets made, except the development database
	rm -rf .venv .venv-bench .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis build \
		tests/clients/typescript/build tests/clients/typescript/node_modules
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# uv is twice as quick as pip alone even counting its own installation. The stamp comes last: an interrupted set-up
# starts again.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Undercroft needs Python 3.11 or newer; $(PYTHON) is not. Name one: make PYTHON=/path/to/python3.12 …' >&2; \
		exit 1; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv --clear .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

# The peers have an environment of their own, so that the project's has nothing of theirs.
$(BENCH_READY): bench/requirements.lock $(READY)
	@test -x $(BENCH_BIN)/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip sync --quiet --python $(BENCH_BIN)/python --require-hashes --compile-bytecode bench/requirements.lock
	@touch $@
