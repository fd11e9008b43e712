# On a fresh machine with Python 3.11+ and make, each of these sets up what it needs by itself.
PYTHON ?= $(shell command -v python3.13 >/dev/null 2>&1 && python3.13 -c '' 2>/dev/null && echo python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench

.PHONY: demo test coverage check docs package-test bench crash crash-long interruptions interruptions-long clean help

help:
	@echo "make demo    watch 200 agents lose no acknowledged step to kill -9"
	@echo "make test    run the tests"
	@echo "make coverage  the tests of the log again, counting lines and branches: fails below 100 % of stepstore.log"
	@echo "make check   ruff, mypy --strict, pyright, layering"
	@echo "make docs    build the documentation site in site/; a warning is an error"
	@echo "make package-test  build wheel and sdist, install them on every Python there is, minimal and with all extras"
	@echo "make bench   measure everything, beside its peers too, and draw it (three quarters of an hour; QUICK=--quick for a first look)"
	@echo "make crash   the short forms of the crash suites and of the simulation (crash-long: the long ones, hours)"
	@echo "make interruptions   cancel, and press Ctrl-C, at every moment (short; interruptions-long: all of it)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Stepwell needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "making a virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(RUN): pyproject.toml | $(BIN)/python
	@echo "installing stepwell …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV): pyproject.toml $(RUN)
	@echo "installing what tests and checks need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

# A peer that cannot be installed is named here, and again by the benchmark; the others are measured.
$(BENCH): pyproject.toml $(RUN)
	@echo "installing what the benchmarks need, and what they measure beside Stepwell …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@$(BIN)/python -m bench.peers.installing
	@touch $@

demo: $(RUN)
	@$(BIN)/stepwell demo

test: $(DEV)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# COVERAGE_CORE: what counts the branches of worker threads too, at a bearable speed, on every version of Python.
coverage: $(DEV)
	@COVERAGE_CORE=ctrace $(BIN)/python -m coverage run --source=stepstore.log -m pytest tests/stepstore tests/journal \
		tests/golden tests/crash
	@$(BIN)/python -m coverage report --show-missing --skip-covered --fail-under=100

check: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/lint-imports

docs: $(DEV)
	@$(BIN)/python tools/make_site.py

package-test: $(DEV)
	@$(BIN)/python -m tests.packaging

CRASH := enumerator failing_calls kill9 atomic_kill9 projector_kill9 bit_flips truncations power_cuts real_errors ghost_pages fuzz

crash: $(DEV)
	@$(BIN)/python -m tests.crash.syncs
	@set -e; for suite in $(CRASH); do echo "== $$suite"; $(BIN)/python -m tests.crash.$$suite --short; done
	@echo "== simulation"; $(BIN)/python -m tests.simulation --short
	@echo "== mutants"; $(BIN)/python -m tests.mutants log --short --named

crash-long: $(DEV)
	@set -e; for suite in $(CRASH); do echo "== $$suite"; $(BIN)/python -m tests.crash.$$suite; done
	@echo "== simulation"; $(BIN)/python -m tests.simulation
	@echo "== state machine"; $(BIN)/python -m pytest --hypothesis-profile=long --timeout=0 tests/stepwell/test_state_machine.py tests/stepwell/test_ports_state_machine.py
	@echo "== mutants"; $(BIN)/python -m tests.mutants log

INTERRUPTIONS := cancellation interrupts

interruptions: $(DEV)
	@set -e; for suite in $(INTERRUPTIONS); do $(BIN)/python -m tests.$$suite --short; done

interruptions-long: $(DEV)
	@set -e; for suite in $(INTERRUPTIONS); do $(BIN)/python -m tests.$$suite; done

# Each writes its table, and numbers and pictures to docs/bench. `make bench QUICK=--quick`: a first look, in build/bench.
# One that fails keeps no other away: it is named at the end, and the page still shows its older numbers, if there are any.
# `ports` is measured by `recall`; `soak` takes ten minutes by itself.
BENCHES ?= ingest latency recover runtime rotation compaction sealed catalog idle wake recall learning scaling flame peers
ROUNDS ?= 3
QUICK ?=

bench: $(BENCH)
	@failed=; for subject in $(BENCHES); do echo "== $$subject"; \
		$(BIN)/python -m bench $$subject --rounds $(ROUNDS) $(QUICK) || failed="$$failed $$subject"; done; \
		$(BIN)/python -m bench.page $(QUICK) || failed="$$failed page"; \
		test -z "$$failed" || { echo "FAILED:$$failed"; exit 1; }

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
