# What you can ask for:
#   make run     install what is missing and serve; Ctrl-C stops it    ARGS="--port 8081"
#   make test    the whole test suite, with real Ray                   ARGS="-k market"
#   make check   style, types, the rules of the house, the fast tests  WORKERS=8
#   make bench   the benchmarks                                        ARGS=...
#   make sim     the simulation                                        SEED=7 STEPS=300
#   make sim-mutants  every planted defect is found by the simulation  ARGS="--processes 8"
#   make lock    rebuild requirements.lock from pyproject.toml         LOCK_FLAGS=--upgrade
#   make clean   remove the environment and caches; never touches data
# PYTHON=python3.12 chooses the interpreter for a new environment.
# WORKERS=4 runs tests in more processes than two; those that start real Ray stay in one of them.
# ARGS="-n0" runs them one after the other in this one, where -s shows what they print.

PYTHON ?= python3
SEED ?= 1
STEPS ?= 150
ARGS ?=
WORKERS ?= 2
LOCK_FLAGS ?=
UV_VERSION := 0.13.9

# Never more workers than processors.  Who turns the plugin off gets none of its options.
PARALLEL = $(if $(findstring no:xdist,$(ARGS)),, \
  -n logical --maxprocesses $(WORKERS))
PIP := .venv/bin/python -m pip --disable-pip-version-check --no-input

.PHONY: run test check bench sim sim-mutants lock clean
.DELETE_ON_ERROR:

# exec: the server takes make's place below the shell and gets the terminal's signals itself.
run: .venv/.installed
	@exec .venv/bin/excore serve $(ARGS)

test: .venv/.installed
	@exec .venv/bin/python -m pytest $(PARALLEL) $(ARGS)

check: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/python -m pytest tests/test_tidy.py
	.venv/bin/python -m pytest $(PARALLEL) -m "not system and not slow" \
	  --ignore=tests/test_tidy.py

bench: .venv/.installed
	@exec .venv/bin/python -m tests.bench $(ARGS)

sim: .venv/.installed
	.venv/bin/python -m tests.simulation --seed $(SEED) --steps $(STEPS) $(ARGS)

sim-mutants: .venv/.installed
	@exec .venv/bin/python -m tests.simulation --seed $(SEED) --seeds 5000 --mutants all $(ARGS)

# Two stamps, so that an edit of pyproject.toml does not install every package again.
.venv/.installed: .venv/.packages pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

# A changed lock gets an empty environment: what it no longer names must not linger.
.venv/.packages: requirements.lock
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer," \
	    "or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	  echo "excore-ray needs Python 3.11 to 3.14; '$(PYTHON)' is" \
	    "$$("$(PYTHON)" -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." \
	    "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(PIP) install --quiet --require-hashes -r requirements.lock
	@touch $@

# Pins stay as they are while they satisfy pyproject.toml, unless LOCK_FLAGS=--upgrade.
# The build backend is locked with the rest, since the project is built without isolation.
lock:
	"$(PYTHON)" -m venv .lock-venv
	.lock-venv/bin/python -m pip --disable-pip-version-check install --quiet uv==$(UV_VERSION)
	"$(PYTHON)" -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | .lock-venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --extra test \
	    $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml -

clean:
	rm -rf .venv .lock-venv build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
