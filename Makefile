# Every target installs its needs and can be run twice. `make` alone lists the targets.

# Debian packages of the daemon, and those of its tests and checks.
PACKAGES      := python3 python3-venv python3-bpfcc libbpf1 tzdata
TEST_PACKAGES := fish gcc groff iperf3 iproute2 man-db mandoc nftables nginx openssl prometheus prometheus-alertmanager redis-tools rsyslog \
		 rsyslog-gnutls rsyslog-openssl strace systemd util-linux wrk zsh
# Peers and traffic generators of the benchmarks.
BENCH_PACKAGES := bpftrace gcc iperf3 libbpf-tools redis-tools
# Peer of the comparison of delivery.
DELIVERY_PACKAGES := prometheus-alertmanager
# Browser of the tests of the status page and of its pictures: 64 MB to fetch.
PAGE_PACKAGES := chromium-headless-shell fonts-dejavu-core
# Tools that build and check the Debian package, and those that install it into folders of Debian releases.
DEB_PACKAGES := debhelper dh-python dpkg-dev lintian
CHROOT_PACKAGES := debian-archive-keyring mmdebstrap
# Tools that fetch and boot other kernels.
KERNEL_PACKAGES := busybox-static debian-archive-keyring file kmod qemu-system-x86
# Tools that build an image of Debian and boot it.
SYSTEM_PACKAGES := debian-archive-keyring dpkg e2fsprogs mmdebstrap qemu-system-x86

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
.PHONY: help setup setup-dev setup-deb packages packages-dev account run demo schemas test test-kernels test-deb test-system test-wheel test-versions \
	test-deb-suite test-ansible test-page pictures fuzz lint soak soak-delivery soak-web bench bench-delivery dist deb release-check install uninstall

help:
	@echo 'make run     watch this host in the foreground with the shipped rules (root, or sudo)'
	@echo 'make demo    show the notifications of a connection storm and a byte spike (under a minute)'
	@echo 'make test    all tests, with real BPF programs'
	@echo 'make test-kernels [KERNELS="6.1 6.12"] [SUBSET=all]   kernel tests on stock Debian kernels, emulated'
	@echo 'make test-system [SYSTEM="--suite trixie"]   the .deb on Debian 12 and 13 with systemd, emulated (half an hour)'
	@echo 'make fuzz [SECONDS=3600] [TARGET=rules]   mutated input of every kind for an hour in all; failing inputs are kept'
	@echo 'make dashboard   write the dashboard of packaging/grafana again, from its description'
	@echo 'make lint    all checks of style, types, imports and the systemd unit'
	@echo 'make schemas write the JSON Schemas of settings and rules again, after a change of their keys in docs/'
	@echo 'make docs    the pages of docs/ as a site, in build/site'
	@echo 'make soak    watch a mixed load for ten minutes; compare every count with the count of the load'
	@echo 'make soak-delivery   kill a delivering process 5,000 times; check that no notification is lost (minutes)'
	@echo 'make soak-fleet [DAEMONS=200]   many daemons and two Alertmanagers; check that each alert is notified once (ten minutes)'
	@echo 'make soak-web   attack the web server of a daemon; compare its ticks and memory with those before (minutes)'
	@echo 'make soak-prometheus   compare counts in a Prometheus, of sample and of a load; PICTURE=FILE draws the dashboard (8 minutes)'
	@echo 'make test-ansible   the role for Ansible against a daemon, examples for Puppet and Salt, the hook for pre-commit (ten minutes)'
	@echo 'make test-page   the status page in a headless Chromium, checked by axe-core; make pictures: those of docs/images'
	@echo 'make bench   measure cost and latency on this host'
	@echo 'make bench-delivery   disturb delivery here and in Alertmanager; compare the notifications (ten minutes)'
	@echo 'make bench-fleet   memory and CPU of Alertmanagers and of a Prometheus by the number of hosts (a quarter of an hour)'
	@echo 'make deb     build the Debian package (12 and 13) into dist/; make dist: source distribution and wheel'
	@echo 'make test-deb [RELEASES="bookworm trixie"]   install, remove and purge the package in bare systems of each release'
	@echo 'make test-deb-suite [RELEASES="bookworm trixie"] [SUITE="tests/unit"]   tests with each release'\''s own Python and modules'
	@echo 'make test-wheel   install the wheel into an environment over the system'\''s Python, and use it'
	@echo 'make test-versions   tests of the HTTP transport with each supported version of requests and urllib3'
	@echo 'make release-check   versions, changelog, licences; each package built twice as the same bytes'
	@echo 'make install [PREFIX=/usr/local] [DESTDIR=…]   install on other distributions; make uninstall'
	@echo 'make setup   only make .venv/bin/bpf-watchdog; make setup-dev: also the tools of tests and checks'

setup: packages account .venv/.setup
setup-dev: packages-dev account .venv/.setup-dev .venv/syslog-ng/.complete .venv/old-http/.complete

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

# The types of requests ask for urllib3 2, which requests of Debian 12 refuses.
.venv/.setup-dev: pyproject.toml | packages-dev $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	$(PIP) install --no-deps 'types-requests>=2.33'
	@$(BIN)/python -m compileall -q watchdog
	@touch .venv/.setup $@

.venv/.setup-fuzz: .venv/.setup-dev
	$(PIP) install --editable '.[dev,fuzz]'
	@touch $@

setup-deb: .venv/.setup-release
	@packaging/ensure-packages $(DEB_PACKAGES)

.venv/.setup-release: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[release]'
	@touch $@

# The HTTP libraries of Debian 12, for tests with them.
.venv/old-http/.complete: | $(BIN)/pip
	@rm -rf .venv/old-http
	$(PIP) install --no-compile --target .venv/old-http requests==2.28.1 urllib3==1.26.12
	@touch $@

# Unpacked, not installed: an installation would remove rsyslog.
.venv/syslog-ng/.complete: | packages-dev $(BIN)/pip
	@packaging/ensure-unpacked syslog-ng-core .venv/syslog-ng

run: setup
	@exec $(SUDO) $(BIN)/bpf-watchdog run

demo: setup
	@exec $(SUDO) $(BIN)/python packaging/demo/demo.py

# Most tests wait most of the time, so that four processes keep two processors busy. After them, also after a failure,
# one process runs the tests that must be alone: those that count or show all of the host, or block it, and those of
# points in time.
PARALLEL_TESTS := tests/integration tests/fault tests/unit tests/fuzz
ALONE_TESTS    := tests/kernel $(addprefix tests/fault/,test_hanging_command_line.py test_random_kills.py) \
		  $(addprefix tests/integration/,test_selftest.py test_ticks_that_fail.py) \
		  $(addprefix tests/integration/daemon/,test_dashboard.py test_stopped.py test_top.py)

test: setup-dev
	@status=0; \
	$(SUDO) $(BIN)/pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder \
		$(addprefix --ignore=,$(ALONE_TESTS)) $(PARALLEL_TESTS) || status=1; \
	$(SUDO) $(BIN)/pytest $(ALONE_TESTS) || status=1; \
	exit $$status

# Some of the tests, with as many kernels at once as there are processors; with SUBSET=all every one of the tests.
test-kernels: SUBSET ?= everywhere
test-kernels: setup-dev
	@packaging/ensure-packages $(KERNEL_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/vm/matrix.py $(KERNELS) $(if $(filter-out all,$(SUBSET)),--pytest="-m $(SUBSET)")

# Atheris is needed here only: inputs that it found are replayed by the tests without it.
fuzz: SECONDS ?= 3600
fuzz: .venv/.setup-fuzz
	@PYTHONPATH=tests exec $(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS) --target '$(TARGET)'

# What editors read: from the pages in docs/, the catalogue of metrics and the readers.
schemas: setup
	@$(BIN)/python packaging/generate/schemas.py

.PHONY: dashboard
dashboard: setup-dev
	$(BIN)/python packaging/grafana/dashboard.py

# An environment of its own: mkdocs needs a library that also has the import name `watchdog`.
.venv/docs/.complete: pyproject.toml | $(BIN)/pip
	$(PYTHON) -m venv --clear .venv/docs
	@.venv/docs/bin/pip --quiet --disable-pip-version-check --no-input install $$($(BIN)/python -c \
		'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

.PHONY: docs
docs: .venv/docs/.complete
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --config-file packaging/docs/mkdocs.yml

soak: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/soak.py

soak-delivery: setup-dev
	@exec $(BIN)/python tests/soak/delivery.py

# 200 daemons need 7 GB of memory and 8 GB of disk.
.PHONY: soak-fleet
soak-fleet: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/fleet.py $(DAEMONS)

soak-web: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/web_server.py

# Without the library that it is made for, which would come with a browser driver of its own: axe-core alone is needed.
.venv/.setup-page: .venv/.setup-dev
	@packaging/ensure-packages $(PAGE_PACKAGES)
	$(PIP) install --no-deps 'axe-playwright-python==0.1.8'
	@touch $@

test-page: .venv/.setup-page
	$(SUDO) $(BIN)/pytest tests/page

# The role against a real daemon, ten minutes; the examples for Puppet and Salt and the hook for pre-commit.
.venv/.setup-ansible: .venv/.setup-dev
	@packaging/ensure-packages puppet-agent
	$(PIP) install --editable '.[ansible]'
	@touch $@

# That of Debian 12, the oldest that the role supports.
.venv/ansible-2.14/.complete: | $(BIN)/pip
	$(PYTHON) -m venv --clear .venv/ansible-2.14
	@.venv/ansible-2.14/bin/pip --quiet --disable-pip-version-check --no-input install 'ansible-core==2.14.*'
	@touch $@

# An environment of its own: Salt requires certain versions of many libraries.
.venv/salt/.complete: | $(BIN)/pip
	$(PYTHON) -m venv --clear .venv/salt
	@.venv/salt/bin/pip --quiet --disable-pip-version-check --no-input install 'salt>=3008'
	@touch $@

test-ansible: .venv/.setup-ansible .venv/ansible-2.14/.complete .venv/salt/.complete
	$(SUDO) $(BIN)/pytest tests/ansible

pictures: .venv/.setup-page
	$(BIN)/python tests/bench/draw_top.py
	@exec $(BIN)/python tests/page/pictures.py

# Five minutes of load, then 10,000 process names; with PICTURE=docs/images/dashboard.svg the picture of the docs.
.PHONY: soak-prometheus
soak-prometheus: setup-dev
	@exec $(SUDO) $(BIN)/python tests/soak/prometheus.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PICTURE),--picture $(PICTURE))

bench: setup
	@packaging/ensure-packages $(BENCH_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/bench/everything.py

.PHONY: bench-fleet
bench-fleet: setup-dev
	@exec $(SUDO) $(BIN)/python tests/bench/bench_fleet.py

bench-delivery: setup
	@packaging/ensure-packages $(DELIVERY_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/bench/bench_delivery.py

# Time stamps of packages: that of the newest change.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --pretty=%ct 2>/dev/null),$(shell stat -c %Y CHANGELOG.md))
export SOURCE_DATE_EPOCH

dist: setup-deb
	@rm -f dist/*.tar.gz dist/*.whl
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist/*

deb: dist
	@rm -f dist/*.deb
	@BIN="$(CURDIR)/$(BIN)" packaging/build-deb dist/*.tar.gz dist
	@lintian --fail-on error,warning --tag-display-limit 0 dist/*.deb

test-deb: RELEASES ?= bookworm trixie
test-deb: deb
	@packaging/ensure-packages $(CHROOT_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/deb/bare_systems.py dist/*.deb $(RELEASES)

# The tests that use no kernel program, and some of those that do, with this host's kernel.
NO_BPF_TESTS := tests/integration/receivers tests/integration/control tests/unit tests/fuzz
test-deb-suite: RELEASES ?= bookworm trixie
test-deb-suite: SUITE ?= $(NO_BPF_TESTS) tests/kernel/test_loader.py tests/integration/daemon/test_delivery.py
test-deb-suite: deb
	@packaging/ensure-packages $(CHROOT_PACKAGES)
	@exec $(SUDO) $(BIN)/python tests/deb/suite.py dist/*.deb $(RELEASES) \
		--parallel '$(filter $(addsuffix %,$(NO_BPF_TESTS)),$(SUITE))' \
		--serial '$(filter-out $(addsuffix %,$(NO_BPF_TESTS)),$(SUITE))'

# The whole life of the package on a host. SYSTEM="--document docs/system-test.md" writes the page of its results.
test-system: deb setup-dev
	@packaging/ensure-packages $(SYSTEM_PACKAGES)
	@exec $(SUDO) $(PYTHON) tests/system/whole_system.py dist/*.deb $(SYSTEM)

test-wheel: dist
	@exec tests/deb/wheel dist/*.whl

test-versions: setup-dev
	@exec $(SUDO) $(BIN)/python tests/versions/versions.py

release-check: setup-deb
	@BIN="$(CURDIR)/$(BIN)" $(BIN)/python packaging/release_check.py .

# Dependencies come from the distribution; TOML is read by the same module everywhere.
install: export PREFIX ?= /usr/local
install: $(BIN)/pip
	@packaging/vendor $(BIN)/pip build/vendored
	@[ -n "$(DESTDIR)" ] || packaging/ensure-account
	@VENDORED=build/vendored packaging/install

uninstall: export PREFIX ?= /usr/local
uninstall:
	@packaging/install --uninstall

lint: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/lint/unique_names.py
	$(BIN)/clang-format --dry-run -Werror $(wildcard bpf/*.c bpf/*.h)
	packaging/systemd/verify
