# Every target does all it needs on a machine that has only Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTORCH := torch>=2.11,<2.14

.PHONY: demo test check docs site benchmark clean

demo: $(VENV)/core
	$(BIN)/collabdm demo -o demo

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/write_cli.py --check
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

docs: $(VENV)/test
	$(BIN)/python docs/write_cli.py

site: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The project itself in a virtual environment of its own. PyTorch goes first: the range takes the CPU build
# where one is offered.
$(VENV)/core: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(PYTORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/test: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

$(VENV)/docs: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist site
