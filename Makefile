# Every target installs what it needs, and can be run again at once. `make` alone tells what there is.

# What the daemon needs of Debian, and what its tests and checks need besides.
PACKAGES      := python3 python3-venv python3-bpfcc libbpf1
TEST_PACKAGES := gcc iperf3 iproute2 nftables nginx openssl prometheus-alertmanager redis-tools rsyslog rsyslog-gnutls \
		 rsyslog-openssl strace systemd util-linux wrk
# What the benchmarks compare with, and what makes their traffic.
BENCH_PACKAGES := bpftrace gcc iperf3 redis-tools
# Whose delivery ours is compared with.
DELIVERY_PACKAGES := prometheus-alertmanager
# What fetches and boots other kernels.
KERNEL_PACKAGES := busybox-static debian-archive-keyring file kmod qemu-system-x86

# Always the distribution's Python: bcc's bindings come from the distribution and fit no other.
PYTHON := /usr/bin/python3
BIN    := .venv/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check --no-input
# BPF needs root (or CAP_BPF and CAP_PERFMON).
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

# Settings for other Pythons and environments must not leak into this one.
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX VIRTUAL_ENV

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev packages packages-dev account run demo test test-kernels lint soak soak-delivery bench bench-delivery

help:
	@echo 'make run     guard this host, in the foreground, by the shipped rules (root, or sudo)'
	@echo 'make demo    show a connection storm and a byte spike being told (under a minute)'
	@echo 'make test    all tests, those of the kernel half included'
	@echo 'make test-kernels [KERNELS="6.1 6.12"] [SUBSET=all]   kernel tests on stock Debian kernels, emulated'
	@echo 'make lint    all checks of style, types, imports and the systemd unit'
	@echo 'make soak    watch a mixed load for ten minutes, and hold every count against what the load did'
	@echo 'make soak-delivery   kill a delivering process 5,000 times, and hold what arrived against the promise (minutes)'
	@echo 'make bench   measure cost and latency on this host'
	@echo 'make bench-delivery   disturb the delivery of ours and of Alertmanager, and show what each tells (ten minutes)'
	@echo 'make setup   only make .venv/bin/bpf-watchdog'

setup: packages account .venv/.setup
setup-dev: packages-dev account .venv/.setup-dev .venv/syslog-ng/.complete

packages:
	@packaging/ensure-packages $(PACKAGES)

packages-dev:
	@packaging/ensure-packages $(PACKAGES) $(TEST_PACKAGES)

# What root gives way to.
account:
	@packaging/ensure-account

# pip comes last into a new environment: without it, an earlier attempt was cut short.
$(BIN)/pip: | packages
	$(PYTHON) -m venv --clear --system-site-packages .venv

.venv/.setup: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable .
	$(BIN)/python -m compileall -q watchdog # or every start compiles, which leaves 10 MB behind
	@touch $@

.venv/.setup-dev: pyproject.toml | packages-dev $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	$(BIN)/python -m compileall -q watchdog
	@touch .venv/.setup $@

# Installed, it would remove rsyslog.
.venv/syslog-ng/.complete: | packages-dev $(BIN)/pip
	@packaging/ensure-unpacked syslog-ng-core .venv/syslog-ng

run: setup
	@exec $(SUDO) $(BIN)/bpf-watchdog run

demo: setup
	@exec $(SUDO) $(BIN)/python packaging/demo/demo.py

test: setup-dev
	$(SUDO) $(BIN)/pytest

# Some of the tests, three minutes a kernel; with SUBSET=all every one of them, a quarter of an hour and more.
test-kernels: SUBSET ?= everywhere
test-kernels: setup-dev
	@packaging/ensure-packages $(KERNEL_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/vm/matrix.py $(KERNELS) $(if $(filter-out all,$(SUBSET)),--pytest="-m $(SUBSET)")

soak: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/soak.py

soak-delivery: setup-dev
	@exec $(BIN)/python tests/soak/delivery.py

bench: setup
	@packaging/ensure-packages $(BENCH_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/bench/everything.py

bench-delivery: setup
	@packaging/ensure-packages $(DELIVERY_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/bench/bench_delivery.py

lint: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/lint/unique_names.py
	$(BIN)/clang-format --dry-run -Werror $(wildcard bpf/*.c bpf/*.h)
	packaging/systemd/verify
