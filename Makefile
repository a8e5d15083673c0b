# Every target sets up what it needs: Python 3.11 or newer with pip and a package index are enough.
PYTHON ?= python3
VENV ?= .venv
PEERS := $(VENV)-peers
SMOKE := $(VENV)-smoke
RUN ?= runs/$(shell date +%Y%m%d-%H%M%S)
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-more fuzz torture lint draw docs notebooks bench bench-gpu bench-peers dist smoke

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Variables: PYTHON (the interpreter to start from), VENV, RUN (the run folder), ARGS (more options of the command).'

train: $(VENV)/.train ## Train the GPT with quantum heads and its classical twin on Shakespeare (RUN=folder ARGS="...")
	$(BIN)/qattn train --baseline --out $(RUN) $(ARGS)

# One process per core, each with one thread; a file's tests stay together, since README's blocks build on each other.
test test-more fuzz torture: export OMP_NUM_THREADS = 1
test: lint ## Run all checks: lint, types, layers, tests, README blocks, gallery (ARGS="..." go to pytest)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile -m 'not more' $(ARGS)

test-more: $(VENV)/.dev ## Run the checks that take minutes: notebooks, random circuits on every engine, killed processes
	$(BIN)/python -m pytest --nbmake --numprocesses logical --maxprocesses 8 -m more $(ARGS)

fuzz: $(VENV)/.dev ## Try many new random circuits on every engine (ARGS="-k density_matrix"); a failure prints its code
	$(BIN)/python -m pytest tests/properties --hypothesis-profile fuzz --numprocesses logical --maxprocesses 8 $(ARGS)

torture: $(VENV)/.dev ## Attack what is promised of jobs and money, for ten minutes at most (ARGS="--seed 7" repeats a failure)
	$(BIN)/python -m tests.torture $(ARGS)

lint: $(VENV)/.dev ## Check style, formatting, types and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

draw: $(VENV)/.train ## Draw the gallery of circuits again, into circuits/
	$(BIN)/qattn draw --gallery circuits/ $(ARGS)

docs: $(VENV)/.docs ## Build the documentation into site/ (ARGS="..." go to mkdocs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

notebooks: $(VENV)/.dev ## Run the notebooks and keep their outputs (ARGS="notebooks/NAME.ipynb" for one)
	$(BIN)/python notebooks/refresh.py $(ARGS)

bench: $(VENV)/.dev ## Measure speed and memory, and print them as ratios (ARGS="--quick", "--full", "--only NAME")
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-gpu: $(VENV)/.dev ## The same on a GPU, in five minutes (ARGS="--nanogpt FOLDER" also times a clone of nanoGPT)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

bench-peers: $(PEERS)/.peers ## The same circuit in PennyLane, tensorcircuit-ng and TorQ, in an environment of their own
	$(PEERS)/bin/python benchmarks/run.py --peers $(ARGS)

dist: $(VENV)/.dev ## Build the source distribution and, from it, the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build

smoke: dist ## Install that wheel into an empty environment and use it there
	rm -rf $(SMOKE)
	$(PYTHON) -m venv $(SMOKE)
	$(SMOKE)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		"$$(echo dist/*.whl)[train]"
	echo '*' > $(SMOKE)/.gitignore
	cp tests/release/smoke.py $(SMOKE)/
	cd $(SMOKE) && bin/python smoke.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "qiskit-qattn needs Python 3.11 or newer as $(PYTHON). Name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# One stamp for each set of extras, so that an installation is repeated only when what it depends on has changed.
$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing the package and its extra "$*" into $(VENV); the first time, this takes minutes.'
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(PEERS)/.peers: benchmarks/peers/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	echo '*' > $(PEERS)/.gitignore
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		--requirement $< --editable '.[train]'
	@touch $@
