# Each target sets itself up; PYTHON=... picks another interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Pinned versions, so that a rerun next year installs the same; see constraints/.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])')
CONSTRAINTS := constraints/$(if $(filter 311,$(VERSION)),py311,py312).txt
STAMP := $(VENV)/.installed-py$(VERSION)

.PHONY: help install demo bench bench-loop bench-report bench-stream bench-tpu test test-accelerators test-all test-faults test-slurm test-browser test-trackers test-compat small lint format docs docs-serve clean
.DEFAULT_GOAL := help

help:
	@echo "make install   a virtual environment in $(VENV) with all that tests need"
	@echo "make demo      the paper's effect on real images, in a few minutes"
	@echo "make test      lint, types and tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make test-slurm  sweeps on a real one-node Slurm (apt-get install slurm-wlm munge)"
	@echo "make test-faults   kills, damaged files, full disks, ...: half an hour"
	@echo "make test-browser  the report's page in a real Chromium (apt-get install chromium)"
	@echo "make test-trackers  runs in W&B (offline) and MLflow, killed and continued"
	@echo "make test-accelerators  the steps compiled for TPUs and GPUs, which it needs not"
	@echo "make test-compat  Python 3.11 to 3.13, lowest and newest dependencies (noxfile.py)"
	@echo "make small     every figure and table in small, into runs/small, report: hours"
	@echo "make lint      ruff and mypy alone"
	@echo "make docs      the site with executed tutorials, into build/docs/site"
	@echo "make bench     measurements of speed; DATA_DIR=... adds CIFAR-10"
	@echo "make bench-tpu  what the TPU compiler says of each network; CONFIG=... TOPOLOGY=..."

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV) with $$($(PYTHON) --version) (a minute or two)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[test]'
	@touch $@

demo: install
	@$(BIN)/python -m launch.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ''

# Every Python there is, lowest and newest dependencies: noxfile.py. SESSIONS="tests-3.13".
SESSIONS ?= tests-3.11 tests-3.12 tests-3.13 lowest newest
test-compat: install
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[test,compat]'
	$(BIN)/nox -s $(SESSIONS)

# As root; skipped, and said so, where Slurm is not installed.
test-slurm: install
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[test,launch]'
	$(BIN)/python -m pytest -m slow -n 0 -rs tests/launch/test_slurm.py

# The report's page in a real browser (apt-get install chromium), and W&B and MLflow.
test-browser test-trackers: install
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[test,browser,wandb,mlflow]'
	$(BIN)/python -m pytest -m slow -n 0 -rs \
	  $(if $(filter test-browser,$@),tests/report/test_page_in_browser.py,tests/train/test_trackers.py)

# The compilers alone; no TPU or GPU is needed. Minutes long.
COMPILERS = '.[test,tpu]' $$($(BIN)/python -c 'import jax; v = jax.__version__; \
  print(f"jax-cuda12-plugin=={v} jax-cuda12-pjrt=={v}")')
test-accelerators: install
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable $(COMPILERS)
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m slow -n 0 -rs tests/launch/test_topology.py

# Times, memory and ratios of the paper's networks by the TPU compiler's estimate, which
# needs no TPU; with the same penalty and batch for all. CONFIG="experiments/X.py" picks.
# TOPOLOGY=h100:1, kernels in place of cycles, says what it needs. Hours on two cores.
CONFIG ?= $(patsubst %,experiments/%.py,cifar10_simplecnn_fp cifar100_vgg11_fp \
  cifar100_wresnet_fp tinyimagenet_fp cifar100_densenet_fp imagenet_resnet18_fixup)
TOPOLOGY ?= v5e:1
bench-tpu: install
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[test,tpu]'
	@failed=0; for config in $(CONFIG); do \
	  $(BIN)/python -m launch.sweep --config=$$config --estimate --topology=$(TOPOLOGY) \
	    --config.penalty.name=fisher --config.train.batch_size=128 \
	    --config.measure.precision=default || failed=1; done; exit $$failed

# The same command continues. SMALL="table1 fig03" picks some of them.
SMALL ?= $(basename $(notdir $(shell grep -l '^get_config, get_sweep = ' experiments/*.py)))
small: install
	@for name in $(SMALL); do \
	  $(BIN)/python -m launch.sweep --config=experiments/$$name.py:small \
	    --out=runs/small/$$name || exit; done
	@$(BIN)/python -m fisher_jax.report runs/small --out=report

# Every fault of docs/faults.md on the real command; prints tried, survived, lost.
test-faults: install
	$(BIN)/python -m pytest -m '' -n 0 tests/faults tests/host \
	  tests/test_processes.py tests/test_startup.py tests/train/test_provenance.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .nox $(BENCH_VENV) $(DOCS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Ours beside PyTorch's, in an environment of its own. For PyTorch without CUDA, a far
# smaller download, name PyTorch's CPU index in PIP_EXTRA_INDEX_URL.
BENCH_VENV ?= .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed-py$(VERSION)
BENCH_PYTHON := JAX_PLATFORMS=cpu $(BENCH_VENV)/bin/python

bench: $(BENCH_STAMP) bench-loop
	$(BENCH_PYTHON) -m benchmarks.run
	$(BENCH_PYTHON) -m benchmarks.torch_gpt

# What the training loop adds to its compiled step. DATA_DIR, a folder of prepared TFDS
# sets, adds CIFAR-10.
bench-loop: install
	$(BIN)/python -m benchmarks.loop_overhead $(DATA_DIR)
	$(BIN)/python -m benchmarks.spectra

# How fast photographs are decoded and cropped for training, beside Pillow alone.
bench-stream: install
	$(BIN)/python -m benchmarks.stream

# The report of 1000 runs of 300 epochs: time and memory.
bench-report: install
	$(BIN)/python -m benchmarks.report_scale

$(BENCH_STAMP): setup.cfg $(CONSTRAINTS) benchmarks/constraints.txt
	@echo "Installing into $(BENCH_VENV) with $$($(PYTHON) --version) (a few minutes)"
	@$(PYTHON) -m venv --clear $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --constraint benchmarks/constraints.txt \
	  --editable '.[bench]'
	@touch $@

# The documentation, in an environment of its own: tutorials and the report of results/
# are made anew where they changed. Any warning, a broken link too, is an error.
DOCS_VENV ?= .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed-py$(VERSION)
MKDOCS := NO_MKDOCS_2_WARNING=1 PYTHONPATH=. PYTHONWARNINGS=ignore \
  $(DOCS_VENV)/bin/python -m mkdocs

docs: $(DOCS_STAMP)
	@$(MKDOCS) build
	@echo "The site: build/docs/site/index.html"
	@echo "With a search box: python3 -m http.server -d build/docs/site"

# While writing: tutorials without their plots.
docs-serve: $(DOCS_STAMP)
	@EXECUTE_TUTORIALS=0 $(MKDOCS) serve

$(DOCS_STAMP): setup.cfg $(CONSTRAINTS)
	@echo "Installing into $(DOCS_VENV) with $$($(PYTHON) --version) (a minute or two)"
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(CONSTRAINTS) --editable '.[docs]'
	@touch $@
