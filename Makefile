# picochat: make demo | test | check | docs | bench | stats | clean
# All but help and clean make .venv first, where it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help demo test check docs bench stats clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train a small chat model on this CPU, with a verdict, in minutes (result: demo/out)"
	@echo "make test    run the tests"
	@echo "make check   check format, lint, import contracts, generated pages and types"
	@echo "make docs    write the generated pages under docs/ again"
	@echo "make bench   run the quick form of every benchmark"
	@echo "make stats   count the source, and trace what a step, an import and a run go through"
	@echo "make clean   remove .venv and demo/out"
	@echo ""
	@echo "PYTHON=python3.12 chooses the interpreter that .venv is made with."

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "picochat needs Python 3.10 or newer; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf,sign,dev]'
	touch $@

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	! git grep -nE '^(<<<<<<<|>>>>>>>) '
	$(BIN)/python -m picochat.cli.pages --check docs
	$(BIN)/pyright --threads 2 --pythonpath $(BIN)/python

docs: $(STAMP)
	$(BIN)/python -m picochat.cli.pages --write docs

bench: $(STAMP)
	$(BIN)/python demo/fetch_corpus.py demo/out/source
	for script in bench/*.py; do $(BIN)/python $$script --quick || exit 1; done

stats: $(STAMP)
	$(BIN)/python bench/stats.py

clean:
	rm -rf .venv demo/out
