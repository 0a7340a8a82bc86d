# Every target installs its needs and can be run twice. `make` alone lists the targets.

# Debian packages of the daemon, and those of its tests and checks.
PACKAGES      := python3 python3-venv python3-bpfcc libbpf1 tzdata
TEST_PACKAGES := gcc iperf3 iproute2 nftables nginx openssl prometheus prometheus-alertmanager redis-tools rsyslog \
		 rsyslog-gnutls rsyslog-openssl strace systemd util-linux wrk
# Peers and traffic generators of the benchmarks.
BENCH_PACKAGES := bpftrace gcc iperf3 libbpf-tools redis-tools
# Peer of the comparison of delivery.
DELIVERY_PACKAGES := prometheus-alertmanager
# Browser of the tests of the status page and of its pictures: 64 MB to fetch.
PAGE_PACKAGES := chromium-headless-shell fonts-dejavu-core
# Tools that fetch and boot other kernels.
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
.PHONY: help setup setup-dev packages packages-dev account run demo test test-kernels fuzz lint soak soak-delivery soak-web test-page pictures bench bench-delivery

help:
	@echo 'make run     watch this host in the foreground with the shipped rules (root, or sudo)'
	@echo 'make demo    show the notifications of a connection storm and a byte spike (under a minute)'
	@echo 'make test    all tests, with real BPF programs'
	@echo 'make test-kernels [KERNELS="6.1 6.12"] [SUBSET=all]   kernel tests on stock Debian kernels, emulated'
	@echo 'make fuzz [SECONDS=3600] [TARGET=rules]   mutated input of every kind for an hour in all; failing inputs are kept'
	@echo 'make lint    all checks of style, types, imports and the systemd unit'
	@echo 'make soak    watch a mixed load for ten minutes; compare every count with the count of the load'
	@echo 'make soak-delivery   kill a delivering process 5,000 times; check that no notification is lost (minutes)'
	@echo 'make soak-web   attack the web server of a daemon; compare its ticks and memory with those before (minutes)'
	@echo 'make test-page   the status page in a headless Chromium, checked by axe-core; make pictures: those of docs/images'
	@echo 'make bench   measure cost and latency on this host'
	@echo 'make bench-delivery   disturb delivery here and in Alertmanager; compare the notifications (ten minutes)'
	@echo 'make setup   only make .venv/bin/bpf-watchdog; make setup-dev: also the tools of tests and checks'

setup: packages account .venv/.setup
setup-dev: packages-dev account .venv/.setup-dev .venv/syslog-ng/.complete

packages:
	@packaging/ensure-packages $(PACKAGES)

packages-dev:
	@packaging/ensure-packages $(PACKAGES) $(TEST_PACKAGES)

# The account that the daemon changes to.
account:
	@packaging/ensure-account

# pip is installed last into a new environment: without it, an earlier attempt was interrupted.
$(BIN)/pip: | packages
	$(PYTHON) -m venv --clear --system-site-packages .venv

# Compiled once: a start that compiles keeps 10 MB more.
.venv/.setup: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable .
	@$(BIN)/python -m compileall -q watchdog
	@touch $@

.venv/.setup-dev: pyproject.toml | packages-dev $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	@$(BIN)/python -m compileall -q watchdog
	@touch .venv/.setup $@

.venv/.setup-fuzz: .venv/.setup-dev
	$(PIP) install --editable '.[dev,fuzz]'
	@touch $@

# Unpacked, not installed: an installation would remove rsyslog.
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

# Atheris is needed here only: inputs that it found are replayed by the tests without it.
fuzz: SECONDS ?= 3600
fuzz: .venv/.setup-fuzz
	@PYTHONPATH=tests exec $(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS) --target '$(TARGET)'

soak: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/soak.py

soak-delivery: setup-dev
	@exec $(BIN)/python tests/soak/delivery.py

soak-web: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/web_server.py

# Without the library that it is made for, which would come with a browser driver of its own: axe-core alone is needed.
.venv/.setup-page: .venv/.setup-dev
	@packaging/ensure-packages $(PAGE_PACKAGES)
	$(PIP) install --no-deps 'axe-playwright-python==0.1.8'
	@touch $@

test-page: .venv/.setup-page
	$(SUDO) $(BIN)/pytest tests/page

pictures: .venv/.setup-page
	@exec $(BIN)/python tests/page/pictures.py

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
