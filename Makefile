# Two commands: `make demo` does the main job, `make test` runs the tests.

PYTHON ?= python3
VENV := .venv
RP := $(VENV)/bin/rp
MODEL ?= bert-base-uncased

.PHONY: demo test search lint golden coverage reference docs pictures clean

demo: $(VENV)/.installed
	$(RP) detect
	$(RP) generate --model $(MODEL) --output-dir skills
	$(RP) run skills
	$(RP) report

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto

# New examples for the properties and the pool's state machine, many more than the suite tries.
search: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto -m hypothesis --hypothesis-profile=search --timeout=3600

# All three speak, whichever fails.
lint: $(VENV)/.installed
	@failed=0; \
	$(VENV)/bin/ruff check . || failed=1; \
	$(VENV)/bin/ruff format --check . || failed=1; \
	$(VENV)/bin/mypy || failed=1; \
	exit $$failed

golden: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -q tests/rp_cli/test_generate_command.py --update-golden

reference: $(VENV)/.installed
	$(VENV)/bin/python docs/generate_reference.py

docs: reference
	$(VENV)/bin/zensical build --strict

pictures: $(VENV)/.installed
	$(VENV)/bin/python docs/make_pictures.py

# All model types: their twins, then the whole test that rp writes for each.
coverage: $(VENV)/.installed
	$(RP) models coverage
	$(RP) models coverage --generated

clean:
	rm -rf $(VENV) skills site .cache

# Installed again only when what is installed changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,web]'
	touch $@
