# make train   sets up a virtual environment of its own and runs the main job
# make test    sets up and runs every check; `make lint` only the static ones
#
# Variables:
#   PYTHON=python3.12            the interpreter that makes the environment (3.11 or newer)
#   TORCH="torch==2.13.0"        the PyTorch to install: any words that pip install takes, e.g. a CUDA build,
#                                TORCH="torch --index-url URL-OF-ANOTHER-BUILD"
#   RECIPE=ppo ARGS="--seed 2"   what `make train` runs instead of the main job, and its flags
#   VENV=.venv                   where the environment goes

PYTHON ?= python3
TORCH ?= torch==2.13.0
RECIPE ?= curl_ppo
ARGS ?=
VENV ?= .venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: train test lint clean FORCE
.DELETE_ON_ERROR:

train: $(VENV)/train.stamp
	$(BIN)/contrail train $(RECIPE) $(ARGS)

test: lint
	$(BIN)/python -m pytest -m "not (slow or ray or cluster)" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "(ray or cluster) and not slow"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build contrail.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis MUJOCO_LOG.TXT
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an installation which was interrupted is done again.
$(VENV)/train.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) install --quiet --editable ".[atari,query]"
	@touch $@

$(VENV)/test.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) install --quiet --editable ".[atari,mujoco,dev]"
	@touch $@

# PyTorch comes first and by this very version: left to the requirements, pip may pick a build with gigabytes of CUDA.
$(VENV)/torch.stamp: $(VENV)/venv.stamp $(VENV)/torch.wanted
	$(PIP) install --quiet $(TORCH)
	@touch $@

# Rewritten only when another TORCH is asked for.
$(VENV)/torch.wanted: $(VENV)/venv.stamp FORCE
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(VENV)/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "contrail needs Python 3.11 or newer; \"$(PYTHON)\" is missing or older: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) (a few minutes, once)"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
