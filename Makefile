# make demo    install, train on the embedded digits, write the pictures to demo/
# make test    install, run every test
# make test-numeric   the tests of numbers, as other processors and numbers of threads compute them
# make check   formatting, lint, types, tests

PYTHON ?= python3
BIN := .venv/bin
SHARED_DATA := ../shared/data

# Real MNIST for the tests that need it; they skip with a reason where there is none.
ifeq ($(CONVVAE_DATA),)
ifneq ($(wildcard $(SHARED_DATA)),)
export CONVVAE_DATA := $(abspath $(SHARED_DATA))
endif
endif

# Processes that run tests side by side, a file at a time; each computes with one thread.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest

# Tests whose numbers must not depend on the processor.
NUMERIC := tests/distributions tests/networks tests/anomalies/test_scores.py \
	tests/model/test_ladder.py tests/model/test_objectives.py tests/model/test_vae.py \
	tests/evaluation/test_encode.py tests/evaluation/test_evaluate.py \
	tests/evaluation/test_fitted_priors.py tests/evaluation/test_latents.py \
	tests/evaluation/test_probes.py tests/evaluation/test_sample_quality.py \
	tests/images/test_ssim.py tests/test_estimator.py tests/test_exact.py \
	tests/training/test_learner.py tests/training/test_loop.py tests/training/test_muon.py
# Instruction sets of PyTorch's own kernels and of oneDNN's, and threads: those of other machines.
SETTINGS := ATEN_CPU_CAPABILITY=default,OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default,OMP_NUM_THREADS=2 \
	ATEN_CPU_CAPABILITY=avx2,OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2,OMP_NUM_THREADS=2 \
	ONEDNN_MAX_CPU_ISA=AVX2,OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2,OMP_NUM_THREADS=2
comma := ,

.PHONY: demo test test-numeric check lint clean

demo: .venv/ready
	rm -rf demo
	$(BIN)/convvae train digits --image-size 32 --latent-dims 6 --variance 0.2 --epochs 100 \
		--batch-size 64 --lr 4e-3 --schedule one-cycle --no-preview --out demo
	$(BIN)/convvae info demo
	@echo "look at demo/pictures/: reconstructions-test.png, samples.png, joint.png, loss.png"

test: .venv/ready
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-numeric: .venv/ready
	set -e; $(foreach setting,$(SETTINGS),echo "$(setting)"; \
		env OMP_WAIT_POLICY=PASSIVE $(subst $(comma), ,$(setting)) $(PYTEST) -q -n $(WORKERS) -k "not umap and not fit_flow" $(NUMERIC);)

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

check: lint test

clean:
	rm -rf .venv demo build dist *.egg-info

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
