# make demo    install, train on the embedded digits, write the pictures to demo/
# make test    install, run every test
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

.PHONY: demo test check lint clean

demo: .venv/ready
	rm -rf demo
	$(BIN)/convvae train digits --image-size 32 --latent-dims 6 --variance 0.2 --epochs 100 \
		--batch-size 64 --lr 4e-3 --schedule one-cycle --no-preview --out demo
	$(BIN)/convvae info demo
	@echo "look at demo/pictures/: reconstructions-test.png, samples.png, joint.png, loss.png"

test: .venv/ready
	$(BIN)/python -m pytest

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
