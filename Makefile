# Two targets do all set-up by themselves: `make book` and `make test`.
# On a machine without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu saves gigabytes of downloads.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= lab
WORKERS ?= 2
TORCH_INDEX ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: book test lint fast study references bench lock clean help

help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/'

$(READY): pyproject.toml requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),) -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.txt
	touch $(READY)

book: $(READY)   ## compute the fresh runs, execute the notebooks, render the book
	$(BIN)/rlheals report --profile $(PROFILE) --workers $(WORKERS) --out book/_generated
	$(BIN)/rlheals notebook notebooks/01_sft_forgets.ipynb --profile $(PROFILE) --out book/_generated/01_sft_forgets.ipynb
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@echo "the book: $(CURDIR)/_build/html/index.html"

test: lint       ## style, types, tests, notebooks against their references
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)   ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

study: $(READY)  ## the recorded study of claims.yaml, and the variants (an hour or two)
	$(BIN)/rlheals study --record results --workers $(WORKERS)

references: $(READY)  ## make the notebook references and their bands anew (the only way they change)
	$(BIN)/python -m rlheals.checks

bench: $(READY)  ## the benchmarks; each prints JSON last
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

lock: $(READY)   ## constraints.txt from what is installed now
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//; /^pip==/d' > constraints.txt

clean:           ## remove what was built; the store of runs in .rlheals stays
	rm -rf _build book/_generated build *.egg-info
