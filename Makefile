# What one does with this repository, each in one word. PYTHON chooses the interpreter, VENV where it is set up.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
WORKERS ?= 3
SEEDS ?= 2000
CASES ?= 200000
ARGS ?=
export PORT

BIN := $(VENV)/bin
JS_TESTS := $(wildcard tests/js/*.test.js)
# Node.js 18, which is Debian 12's, has what every browser has only when it is asked to.
NODE := $(if $(shell command -v node),node $(shell node -p "parseInt(process.version.slice(1)) < 20 ? '--experimental-global-webcrypto' : ''"))

# The demo asks for a database server's or Redis' packages only if the environment names one.
comma := ,
EXTRAS := daphne
EXTRAS += $(if $(filter postgres%,$(DATABASE_URL)),postgres)
EXTRAS += $(if $(filter mysql%,$(DATABASE_URL)),mysql)
EXTRAS += $(if $(REDIS_URL),redis)
EXTRAS := $(strip $(EXTRAS))
empty :=
DEMO_PACKAGES := -e ".[$(subst $(empty) $(empty),$(comma),$(EXTRAS))]" $(if $(DATABASE_URL),dj-database-url)
DEMO_STAMP := $(VENV)/.livefeed-$(subst $(empty) $(empty),-,$(EXTRAS))$(if $(DATABASE_URL),-url)
# The tests that talk to no process but the database: not those that start servers, nor those that start other tests,
# nor those that have nothing to do with Django's database.
UNIT := --ignore tests/e2e --ignore tests/backends/test_servers.py --ignore tests/test_simulation.py
UNIT += --ignore tests/test_redis_history.py --ignore tests/test_redis_leases.py --ignore tests/test_fuzzer.py
DEV_STAMP := $(VENV)/.livefeed-dev
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
NPM_STAMP := node_modules/.livefeed

.PHONY: help demo dev js js-check test test-js test-package test-postgres test-mariadb simulation fuzz faults bench bench-docs lint format clean

help:
	@echo "make demo           run the demo site (PORT=8000; DATABASE_URL and REDIS_URL if you have them)"
	@echo "make test           run the tests that this machine can run (ARGS='-k words' chooses)"
	@echo "make test-package   run those of them that need neither browsers nor servers, on LIVEFEED_TEST_DATABASE"
	@echo "make test-postgres  run the tests of the package on PostgreSQL (LIVEFEED_TEST_POSTGRES)"
	@echo "make test-mariadb   run the tests of the package on MariaDB (LIVEFEED_TEST_MARIADB)"
	@echo "make faults         let servers, writers, Redis and the network fail for a while, and count (ARGS=--help)"
	@echo "make simulation     run the path of events through SEEDS=2000 simulated runs full of faults"
	@echo "make fuzz           let CASES=200000 hostile requests, events, cursors, names and tokens look for a hole"
	@echo "make js             build livefeed/static/livefeed/livefeed.js from livefeed/browser/ (needs npm)"
	@echo "make js-check       fail where that file is not what its sources give, or its types do not hold"
	@echo "make bench          measure livefeed beside its peers (ARGS='--only fanout --quick', ARGS=--help)"
	@echo "make bench-docs     put the figures of the last make bench into docs/performance.md"
	@echo "make lint           ruff and mypy"
	@echo "make format         let ruff put the code in order"
	@echo "make clean          remove what the other targets have made"

demo: $(DEMO_STAMP)
	$(BIN)/python manage.py demo --serve

dev: $(DEV_STAMP)

test: $(DEV_STAMP) test-js
	@$(PYTEST) $(ARGS); status=$$?; \
	$(if $(NODE),,echo "left out: tests/js because node is not installed."; echo "    to run: install nodejs.";) \
	exit $$status

test-js:
	$(if $(and $(NODE),$(JS_TESTS)),$(NODE) --test $(JS_TESTS),@:)

# The one file that is shipped is committed, so that nobody but who changes the sources needs npm.
js: $(NPM_STAMP)
	npm run --silent build

js-check: $(NPM_STAMP)
	@mkdir -p build && OUT=build/livefeed.js npm run --silent build
	@cmp build/livefeed.js livefeed/static/livefeed/livefeed.js || { echo "Run make js, and commit what it writes."; exit 1; }
	npm run --silent types

$(NPM_STAMP): package.json
	npm install --loglevel=error --no-audit --no-fund --no-package-lock --ignore-scripts
	@touch $@

# On whatever database LIVEFEED_TEST_DATABASE names: for another Python (VENV) or another Django.
test-package: $(DEV_STAMP)
	$(PYTEST) $(UNIT) $(ARGS)

test-postgres: export LIVEFEED_TEST_DATABASE = $(or $(LIVEFEED_TEST_POSTGRES),postgres://postgres@127.0.0.1:5432/postgres)
test-postgres: $(DEV_STAMP)
	$(PYTEST) --only-database $(UNIT) $(ARGS)

test-mariadb: export LIVEFEED_TEST_DATABASE = $(or $(LIVEFEED_TEST_MARIADB),mysql://root@127.0.0.1:3306/)
test-mariadb: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet -e ".[mysql]"
	$(PYTEST) --only-database $(UNIT) $(ARGS)

faults: $(DEV_STAMP)
	$(BIN)/python -m tests.e2e.faults $(ARGS)

simulation: $(DEV_STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

fuzz: $(DEV_STAMP)
	$(BIN)/python -m tests.fuzzing --cases $(CASES) $(ARGS)

bench:
	$(PYTHON) -m benchmarks $(ARGS)

bench-docs:
	benchmarks/build/venv/bin/python -m benchmarks.docs $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict livefeed

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) node_modules build benchmarks/build dist *.egg-info db.sqlite3* .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(DEMO_PACKAGES)
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@
