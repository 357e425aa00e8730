# fisherbook: `make book` on a fresh checkout does everything; `make help` says what else there is.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.fisherbook-installed
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help setup check lint book published verify-published test serve bench clean notebooks

help: ## explain these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Everything is installed in $(VENV); VENV=path takes another place, PYTHON=python3.x another Python (3.11 or newer)."
	@echo "  What was computed stays in .store and is never computed again; FISHERBOOK_STORE=path takes another place."

setup: $(INSTALLED) ## install the tested versions of everything into a virtual environment

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: name one with PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

book: setup ## train, measure, execute the notebooks and build the site (quick parameters): _build/html/index.html
	$(BIN)/fisherbook build --profile quick

published: setup ## the same with the published parameters, from data/results; FRESH=1 computes them again: hours, resumable
	$(BIN)/fisherbook build --profile published $(if $(FRESH),--fresh)

verify-published: setup ## compute a small piece of each published result again, and compare
	$(BIN)/fisherbook verify

check: lint ## what every change must pass, in a minute: lint, and the short tests with the examples in docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadscope -m 'not slow' tests fisherbook

lint: setup ## check style, form and types, and count the package's lines of code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/python tools/count_lines.py

test: setup ## run the tests and every notebook; the site is tested if it was built
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

serve: setup ## show the built site at http://localhost:8000 (PORT=n for another port)
	$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 $(PORT)

bench: setup ## time measurement and training against their baselines; BENCH="--device cuda", or --json FILE to keep the numbers
	$(BIN)/python benchmarks/bench.py $(BENCH)

notebooks: setup ## make ready to commit what the last `make book` found: verdicts, expected numbers, the README's table
	$(BIN)/python tools/commit_notebooks.py

clean: ## remove the built site and caches, but neither the environment nor the store
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis
	find fisherbook tests book -name __pycache__ -prune -exec rm -rf {} +
