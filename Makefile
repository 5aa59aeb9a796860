# picochat: make demo | test | check | bench.  Each makes .venv first where it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo test check docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    text becomes a chat model with a verdict, on this CPU, in minutes (result: demo/out)"
	@echo "make test    the tests"
	@echo "make check   lint, types, import contracts, generated docs"
	@echo "make docs    write the generated pages under docs/ again"
	@echo "make bench   the quick form of every benchmark"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "picochat needs Python 3.10 or newer; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf,dev]'
	touch $@

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m picochat.cli.pages --check docs
	$(BIN)/pyright --threads 2 --pythonpath $(BIN)/python

docs: $(STAMP)
	$(BIN)/python -m picochat.cli.pages --write docs

bench: $(STAMP)
	$(BIN)/python demo/fetch_corpus.py demo/out/source
	for script in bench/*.py; do $(BIN)/python $$script --quick || exit 1; done

clean:
	rm -rf .venv demo/out
