# make demo    upscale four photos with the bundled model, into demo/
# make test    linter, type checker, tests; WORKERS=8 for eight at a time
# make bench   measure this machine: docs/performance.md
# make docs    docs/cli.md from the program
#
# TORCH_INDEX chooses the build of torch (after another one: make clean first), for example
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2
RUN = $(VENV)/bin

.PHONY: demo test bench docs clean

demo: $(VENV)/installed
	$(RUN)/python scripts/demo.py demo

test: $(VENV)/installed
	$(RUN)/ruff format --check dreamsr tests scripts benchmarks
	$(RUN)/ruff check dreamsr tests scripts benchmarks
	$(RUN)/mypy
	$(RUN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) --dist worksteal

bench: $(VENV)/installed
	$(RUN)/pip install -c constraints.txt -e '.[bench]'
	$(RUN)/python benchmarks/run.py docs/performance.md

docs: $(VENV)/installed
	$(RUN)/python -m typer dreamsr.cli.app utils docs --name dreamsr --output docs/cli.md

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' || \
	  { echo "Python 3.11 or newer with venv is needed: apt install python3-venv, or make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(RUN)/pip install -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(RUN)/pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
