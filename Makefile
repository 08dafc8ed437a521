# Each command needs only Python (3.11 or newer) and make, and installs everything else:
#   make demo    simulates cells, trains on them and writes a report
#   make napari  runs the tests of the plugin in real windows
#   make test    runs the tests;  make check: lint, types, import directions, security, site
#   make bench   runs slow tests and benchmarks;  make site: the pages, in site/index.html
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo
STAMP  := $(VENV)/.installed

export NO_MKDOCS_2_WARNING = 1

.PHONY: demo test check site audit napari napari-packages bench bench-short install clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mitolume needs Python 3.11 or newer; name it: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,czi]' -c constraints.txt
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/mitolume demo --out $(OUT) --resume

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r src
	$(BIN)/mkdocs build --quiet --strict

site: $(STAMP)
	$(BIN)/mkdocs build --quiet --strict
	@echo "Open site/index.html"

# Known faults of the packages in constraints.txt; asks a server.
audit: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

napari-packages: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,czi,napari]' -c constraints.txt

# A second window in one process can end in a crash of the software renderer: a process for each file.
napari: napari-packages
	for file in tests/in_napari/test_*.py; do $(BIN)/python -m pytest -n 0 -q $$file || exit 1; done

bench: $(STAMP)
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python -m pytest -m slow -s
	for recipe in epfl4 vnc4 h9c2; do $(BIN)/mitolume run benchmarks/$$recipe.yaml --out runs/$$recipe --resume || exit 1; done

# Speed beside MONAI, a plain loop, tifffile and scikit-image; under five minutes on a quiet core.
bench-short: $(STAMP)
	$(BIN)/python benchmarks/speed.py --rounds 2

clean:
	rm -rf $(VENV) demo runs site
