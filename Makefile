# make lab    set everything up on the first run and open the notebooks
# make test   set everything up on the first run; lint, types, unit tests, every notebook
# make quick  lint, types, and unit tests without the slow ones, in three minutes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: lab test quick lint machines notebooks paintings bench clean

# Waiting threads sleep: when other programs want the cores too, spinning ones make PyTorch ten times slower
# (measured on two cores beside one busy process: 500 ms an evaluation against 49 ms; alone 23 ms against 30 ms).
lab: $(READY)
	OMP_WAIT_POLICY=passive $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_start_here.ipynb

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests notebooks --nbval --nbval-current-env \
		--nbval-sanitize-with tests/sanitize.cfg --nbval-cell-timeout 600 -n 2 --dist loadfile

quick: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not slow" -n 2 --dist loadfile -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error

# Run every notebook on every machine that can be played on this one, and print a table (two to three hours on two cores)
machines: $(READY)
	$(BIN)/python tests/machines.py $(NOTEBOOK)

# Run every notebook and store its outputs (NOTEBOOK=notebooks/02_deepdream.ipynb for one)
notebooks: $(READY)
	$(BIN)/python tests/canonical.py $(NOTEBOOK)

paintings: $(READY)
	$(BIN)/python tools/paint.py

bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(if $(PEERS),--peers $(PEERS))

clean:
	rm -rf $(VENV) dist

# uv takes torch and torchvision from the same build, in seconds; pip alone may pair builds that do not fit.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "labkit needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv -c constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[test]'
	@touch $@
