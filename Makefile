# `make app` and `make test` do all set-up themselves, in .venv, from the requirements files.
PYTHON ?= python3
# What `make bench` trains on: IMDb's Hub id or a folder of it.
DATASET ?= stanfordnlp/imdb
BIN := .venv/bin

.PHONY: app test lint bench clean

app: .venv/app
	$(BIN)/python app.py

test: .venv/dev
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; } || echo "no chromium: browser tests will be skipped"
	$(BIN)/python -m pytest

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/dev
	$(BIN)/python benchmarks/training.py --dataset $(DATASET)

.venv/app: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt
	touch $@

.venv/dev: .venv/app requirements-dev.txt
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv runs
