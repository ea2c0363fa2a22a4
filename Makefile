# `make app` and `make test` do all set-up themselves, in .venv, from the requirements files.
PYTHON ?= python3
# What `make bench` trains on: IMDb's Hub id or a folder of it.
DATASET ?= stanfordnlp/imdb
BIN := .venv/bin

.PHONY: app test test-all lint bench deploy audit clean

app: .venv/app
	$(BIN)/python app.py

test: .venv/dev
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; } || echo "no chromium: browser tests will be skipped"
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

# Also those that take minutes: several processes, Ray, nginx, ONNX, random kills, the tutorial, deep fuzzing.
test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow --timeout 1800
	FUZZ_EXAMPLES=200 $(BIN)/python -m pytest tests/test_fuzz.py --timeout 1800

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: .venv/dev
	$(BIN)/python benchmarks/training.py --dataset $(DATASET)

# make deploy SPACE=user/name [HARDWARE=zero-a10g] [NAMESPACE=user]; needs a token (hf auth login or HF_TOKEN)
deploy: .venv/app
	@test -n "$(SPACE)" || { echo "make deploy SPACE=user/name"; exit 2; }
	$(BIN)/python -m adapter_arena.hub.deploy $(SPACE) $(if $(HARDWARE),--hardware $(HARDWARE)) $(if $(NAMESPACE),--namespace $(NAMESPACE))

# Known weaknesses of the locked versions, from PyPI's advisories.
audit: .venv/dev
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

.venv/app: requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt -c constraints.txt
	touch $@

.venv/dev: .venv/app requirements-dev.txt
	$(BIN)/pip install -q -r requirements-dev.txt -c constraints.txt
	touch $@

clean:
	rm -rf .venv runs
