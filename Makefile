# Everything a person does here. `make demo` and `make test` set up what they need.
SHELL := /bin/bash
PY := .venv/bin/python
KEYONG_SHARED ?= ../shared
# One more than the smallest machine has cores: tests wait for one another's processes much of the time.
WORKERS ?= 3
export KEYONG_SHARED
# Where it is set, each of some thousand processes compiles this tree anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo grid-load emissions turbofan test lint types compiled unit long attack crash network load soak container kernel bench bench-smoke proto text lock clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## .venv, bubblewrap and the runtime that job code runs in
	@bash .ci/setup

demo: setup ## the whole story with real processes on this machine
	@.venv/bin/keyong demo

grid-load: setup ## seven utilities train a load model (needs KEYONG_SHARED)
	@$(PY) -m examples.grid_load.run --data "$(KEYONG_SHARED)/data/pjm_hourly"

emissions: setup ## five gas turbine plants fit a model of their emissions (needs KEYONG_SHARED)
	@$(PY) -m examples.emissions.run --data "$(KEYONG_SHARED)/data/gas_turbine"

turbofan: setup ## five fleets train an estimate of engines' remaining life (needs KEYONG_SHARED)
	@$(PY) -m examples.turbofan.run --data "$(KEYONG_SHARED)/data/cmapss_fd001"

test: setup ## the tests; the longest are in `make long`
	@$(MAKE) --no-print-directory -j 3 --output-sync types lint compiled
	@$(MAKE) --no-print-directory unit

lint: setup ## style, and the arrows between packages
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports

types: setup ## static types
	@.venv/bin/mypy

compiled: setup ## every test imported once: the workers of `unit` find it compiled
	@told=$$($(PY) -m pytest --collect-only -qq 2>&1) || { echo "$$told"; exit 1; }

unit: setup ## the tests alone
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup

long: setup ## what `make test` leaves out because a shorter test shows the same, and many more examples of each property
	@KEYONG_LONG=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup --timeout 1800 -m "long or hypothesis"

crash: setup ## a thousand kills of node, coordinator and requester, a thousand of the ledger, every fault of a disk
	@KEYONG_LONG=1 KEYONG_CRASH_CYCLES=1000 KEYONG_ALL_FAULTS=1 $(PY) -m pytest -s --timeout 7200 tests/faults tests/federation/ledger/test_ledger_crash.py

attack: setup ## job code that was written to steal, at every tier and with each layer taken away; by root also as an ordinary user
	@KEYONG_ATTACK=1 $(PY) -m pytest -n 2 --timeout 900 tests/adversarial/attacks
	@if [ "$$(id -u)" = 0 ]; then place=$$(mktemp -d /var/tmp/keyong-attack-XXXXXX) && chown 61234:61234 $$place && \
		setpriv --reuid=61234 --regid=61234 --clear-groups env HOME=$$place TMPDIR=$$place KEYONG_ATTACK=1 \
		$(PY) -m pytest -n 2 -p no:cacheprovider --timeout 900 tests/adversarial/attacks; \
		code=$$?; rm -rf $$place; exit $$code; fi

network: setup ## jobs on bad lines, between network namespaces (10 minutes)
	@KEYONG_NETWORK=1 $(PY) -m pytest -n0 --timeout 900 tests/network

load: setup ## a hundred nodes and fifty jobs on one coordinator (5 minutes)
	@KEYONG_LONG=1 KEYONG_LOAD=1 $(PY) -m pytest -n0 --timeout 900 tests/load

soak: setup ## a day's work in 20 minutes, and whether anything grows (SOAK_SECONDS=90 for a short one)
	@$(PY) -m tests.load.soak --seconds $(or $(SOAK_SECONDS),1200) --out soak

container: setup ## the images built, a job between their containers, both tiers within podman (needs root, podman, mmdebstrap and a package mirror)
	@KEYONG_CONTAINERS=1 $(PY) -m pytest -n 0 --timeout 3600 tests/packaging

kernel: setup ## limits under another kernel with control groups of version 2, emulated: KERNEL=FOLDER of an unpacked package (root, QEMU, busybox; 3 minutes)
	@KEYONG_KERNEL="$(KERNEL)" $(PY) -m pytest -n 0 -s --timeout 1800 tests/kernels

bench: setup ## every published figure with its target
	@.venv/bin/keyong bench all

bench-smoke: setup ## every benchmark once, at its smallest size
	@KEYONG_BENCH_SMOKE=1 $(PY) -m pytest -n0 --timeout 1800 tests/keyong/bench

proto: setup ## generated code of the wire
	@$(PY) -m grpc_tools.protoc -I federation/wire --python_out=federation/wire/_generated \
		--pyi_out=federation/wire/_generated --grpc_python_out=federation/wire/_generated federation/wire/link.proto
	@sed -i 's/^import link_pb2/from federation.wire._generated import link_pb2/' federation/wire/_generated/link_pb2_grpc.py

text: setup ## the catalogue of translations
	@$(PY) -m keyong.text.extract

lock: setup ## the versions that were tested
	@$(PY) -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean: ## everything that setup and demo made
	@rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
