# make demo   a new virtual environment, torch, the package, and the demonstration
# make test   the same environment with the developers' tools: lint, types, tests (JOBS at a time)
# make check  lint and types alone
# make fuzz   damaged images, manifests, configurations and split files, for FUZZ_SECONDS in all
# make browser  tests the web demo and the page without a server in Chromium, which comes from Debian (as root) unless
#               CHROMIUM names one; the latter needs npm, which fetches onnxruntime-web (33 MB)

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
FUZZ_SECONDS ?= 180
JOBS ?= 2

.PHONY: demo test check fuzz browser clean

demo: $(VENV)/.demo
	$(BIN)/sind-hf demo

test: check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/.dev
	FUZZ_SECONDS=$(FUZZ_SECONDS) timeout $$(($(FUZZ_SECONDS) * 2 + 120)) $(BIN)/python -m pytest tests/fuzz

browser: $(VENV)/.dev
	$(BIN)/python -m pip install -e '.[dev,browser]'
	command -v "$${CHROMIUM:-chromium}" || (apt-get update && apt-get install -y chromium)
	$(BIN)/python -m pytest tests/app/test_browser.py tests/app/test_static_browser.py

# torch comes first and by name: a bare range would fetch a CUDA build of several GB. A torch that is there already
# is kept.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sind-hf needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install "$(TORCH)"
	touch $@

$(VENV)/.demo: $(VENV)/.torch setup.cfg
	$(BIN)/python -m pip install -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch setup.cfg
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
