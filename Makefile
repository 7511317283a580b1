PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run app test bench lint readme saved clean

run: $(VENV)/.installed
	@$(BIN)/capsim plan scenarios/chat-llama70b-h100.yaml

app: $(VENV)/.installed
	@$(BIN)/capsim app

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n auto --dist worksteal --benchmark-disable

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m bench --benchmark-columns=min,median,max,rounds

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

readme: $(VENV)/.installed-dev
	@$(BIN)/python tests/readme.py

saved: $(VENV)/.installed-dev
	@$(BIN)/python tests/saved.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "capsim needs Python 3.11 or newer as '$(PYTHON)' (Debian: apt install python3); or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing (Debian: apt install python3-venv), then run make again"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing capsim into $(VENV) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the development tools into $(VENV) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
