PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint clean

demo: .venv/installed
	.venv/bin/spacy-ie-moe extract assets/demo.txt --labels-file assets/demo_labels.json --format html --output demo.html
	.venv/bin/spacy-ie-moe extract assets/demo.txt --labels-file assets/demo_labels.json
	@echo "The same as a page: demo.html"

test: .venv/installed-test
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/installed-dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) --constraint constraints.txt --editable ".[test]"
	touch $@

.venv/installed-dev: .venv/installed-test
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
