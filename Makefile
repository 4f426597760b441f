# One command per target; each installs what it needs by itself on a bare Debian 12.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python
# Debian packages by the command that proves them present.
DEB_COMMANDS := ip:iproute2 nft:nftables iperf3:iperf3 ping:iputils-ping ethtool:ethtool tcpdump:tcpdump gcc:gcc
DEB_FILES := /usr/lib/python3.11/ensurepip/__init__.py:python3-venv /usr/include/stdio.h:libc6-dev \
             /usr/include/openssl/evp.h:libssl-dev /usr/include/python3.11/Python.h:python3-dev \
             /usr/lib/$(shell uname -m)-linux-gnu/libseccomp.so.2:libseccomp2
PATH := /usr/sbin:/sbin:$(PATH)
export PATH

.PHONY: help system venv demo test lint portal-test vendor bench transfer fuzz acceptance chaos install install-files uninstall wheel deb \
        vm-test clean sanitize

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

system: ## install the Debian packages that are missing (root)
	@missing=""; \
	for pair in $(DEB_COMMANDS); do command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair#*:}"; done; \
	for pair in $(DEB_FILES); do [ -e $${pair%%:*} ] || missing="$$missing $${pair#*:}"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

venv: $(VENV)/.ready ## virtual environment with mpq and its development tools

NATIVE := $(wildcard mpq_worker/*.pyx mpq_worker/*.pxd mpq_worker/native/*)

$(VENV)/.ready: setup.cfg setup.py pyproject.toml $(NATIVE) | system
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -e .[dev] 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

build/relay: tools/relay.c | system
	@mkdir -p build
	@gcc -O2 -Wall -Wextra -Werror -o $@ $<

build/clock.so: tools/chaos/clock.c | system
	@mkdir -p build
	@gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o $@ $<

build/load build/copy: build/%: tools/bench/%.c | system
	@mkdir -p build
	@gcc -O3 -Wall -Wextra -Werror -o $@ $<

demo: venv build/relay ## nine tunnels, live, with loss and kills; writes build/demo.json
	@$(PY) -m tools.demo

lint: venv ## style, types and the import rules alone
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

test: lint build/relay build/load build/copy build/clock.so ## lint, types, imports, and every test
	@$(PY) -m pytest

# ONLY="api history" runs some of its files, SECONDS=30 shortens what is measured over time (60).
portal-test: venv build/relay build/clock.so ## the portal: page in Chromium, API, history, alarms, Prometheus, load; writes build/portal
	@$(MAKE) -s system DEB_COMMANDS="$(DEB_COMMANDS) chromium:chromium chromedriver:chromium-driver npm:npm \
	  prometheus:prometheus"
	@MPQ_SECONDS=$(or $(SECONDS),60) $(PY) -m pytest $(if $(ONLY),$(ONLY:%=tests/portal_full/test_%.py),tests/portal_full)

VENDOR := $(CURDIR)/mpq_supervisor/portal/static/vendor
UPLOT := 1.6.32

vendor: ## the page's chart library and its licence, by npm; what comes is committed, so that nothing else needs npm
	@$(MAKE) -s system DEB_COMMANDS=npm:npm DEB_FILES=
	@install -d $(VENDOR)/uplot
	@cd "$$(mktemp -d)" && npm pack --silent uplot@$(UPLOT) >/dev/null && tar -xzf uplot-$(UPLOT).tgz && \
	  install -m 644 package/LICENSE package/dist/uPlot.iife.min.js package/dist/uPlot.min.css -t $(VENDOR)/uplot && rm -r "$$PWD"

# ONLY="ladder growth" runs some experiments, RUNS=1 shortens all; the peers come from Debian.
bench: venv build/relay build/load build/copy ## beside OpenVPN, wireguard-go, a bare copy; as it grows; writes build/bench.json, .png
	@$(MAKE) -s system DEB_COMMANDS="openvpn:openvpn wireguard-go:wireguard-go wg:wireguard-tools" DEB_FILES=
	@$(PY) -m tools.bench $(if $(RUNS),--runs $(RUNS)) $(ONLY)

transfer: venv build/relay ## 20 GB through a tunnel, and under loss and reordering, byte for byte; writes build/transfer.json
	@$(PY) -m tools.bench.transfer $(if $(SHARE),--share $(SHARE))

fuzz: venv ## everything that reads what others write, for SECONDS (300); writes build/fuzz.json
	@$(MAKE) -s system DEB_COMMANDS=clang-14:clang-14 DEB_FILES=/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.fuzzer-x86_64.a:libclang-rt-14-dev
	@$(PY) -m pip install -q --disable-pip-version-check -e .[dev,fuzz]
	@$(PY) -m tests.fuzz $(or $(SECONDS),300)

sanitize: venv ## the native loop under AddressSanitizer and UBSan: its tests and corpora
	@$(PY) -m pip install -q --disable-pip-version-check "Cython>=3,<4"
	@$(PY) -m tools.sanitize

acceptance: venv build/relay ## isolation, shared link, shared core, 50 kills, start-up; writes build/acceptance.json
	@$(PY) -m tools.acceptance

chaos: venv build/relay build/clock.so ## faults of every kind under numbered probes (HOURS=n SEED=n); writes build/chaos.json, .png
	@$(PY) -m tools.chaos $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED)) $(CHAOS)

# A package is staged in DESTDIR. Of what is in /etc only the examples are replaced: the rest is the administrator's.
PREFIX ?= /usr
INSTALLED := $(DESTDIR)$(PREFIX)/lib/mpq
UNITS := $(DESTDIR)$(PREFIX)/lib/systemd/system
SHARE := $(DESTDIR)$(PREFIX)/share/doc/mpq
SYSCTLS := $(DESTDIR)/etc/sysctl.d/90-mpq.conf
NETWORKD := $(DESTDIR)$(PREFIX)/lib/systemd/networkd.conf.d/90-mpq.conf
MANUAL := $(DESTDIR)$(PREFIX)/share/man/man8/mpq-supervisor.8
COMPLETION := $(DESTDIR)$(PREFIX)/share/bash-completion/completions/mpq-supervisor
SAMPLES := $(patsubst etc/%,$(DESTDIR)/etc/mpq/%.example,$(wildcard etc/*.toml))

install: install-files ## into PREFIX (/usr) below DESTDIR; configurations are left alone
	@$(MAKE) -s system DEB_COMMANDS="nft:nftables gcc:gcc"
	@$(PYTHON) -m venv $(INSTALLED)
	@rm -rf build/lib* build/temp.* build/bdist.*
	@$(INSTALLED)/bin/python -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-compile --upgrade . 2>&1 \
	  | { grep -v '^WARNING: Location' || true; }
	@$(INSTALLED)/bin/python -m pip uninstall -q -y --root-user-action=ignore setuptools pip
	@rm -rf build/lib* build/temp.* build/bdist.*
	@find $(INSTALLED)/bin -type f ! -name mpq-supervisor -delete
	@sed -i '1s|^#!$(INSTALLED)/|#!$(PREFIX)/lib/mpq/|' $(INSTALLED)/bin/mpq-supervisor
	@sed -i '/^command/d' $(INSTALLED)/pyvenv.cfg
	@rm -f $(INSTALLED)/lib/python*/site-packages/mpq-*.dist-info/direct_url.json
	@install -d $(dir $(MANUAL) $(COMPLETION))
	@$(INSTALLED)/bin/python tools/manual.py page >$(MANUAL)
	@$(INSTALLED)/bin/python tools/manual.py completion >$(COMPLETION)
	@# Nobody edits what is installed, and a package's sources have other times than those that were compiled.
	@$(INSTALLED)/bin/python -m compileall -qf --invalidation-mode unchecked-hash $(if $(DESTDIR),-s $(DESTDIR) -p /) $(INSTALLED)/lib
	@echo "mpq is in $(DESTDIR)$(PREFIX)/lib/mpq. Next ($(PREFIX)/share/doc/mpq/operations.md):"
	@echo "  systemd-sysusers mpq.conf && systemd-tmpfiles --create mpq.conf && sysctl --system"
	@echo "  certificates into /etc/mpq/pki:    mpq-supervisor pki --help"
	@echo "  a configuration from its example:  cp /etc/mpq/site.toml.example /etc/mpq/mpq.toml"
	@echo "  mpq-supervisor check && systemctl daemon-reload && systemctl enable --now mpq-supervisor"

install-files:
	@install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/decisions $(dir $(SYSCTLS)) $(DESTDIR)/etc/mpq
	@ln -sfn $(PREFIX)/lib/mpq/bin/mpq-supervisor $(DESTDIR)$(PREFIX)/bin/mpq-supervisor
	@install -D -m 644 units/mpq-supervisor.service -t $(UNITS)
	@sed -i 's|/usr/|$(PREFIX)/|g' $(UNITS)/mpq-supervisor.service
	@install -D -m 644 units/mpq.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/mpq.conf
	@install -D -m 644 units/mpq.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/mpq.conf
	@install -D -m 644 units/mpq-networkd.conf $(NETWORKD)
	@[ -e $(SYSCTLS) ] || install -m 644 etc/sysctl.d/90-mpq.conf $(SYSCTLS)
	@for sample in etc/*.toml; do install -m 644 $$sample $(DESTDIR)/etc/mpq/$${sample##*/}.example; done
	@install -m 644 $(wildcard README.md CHANGELOG.md LICENSE) docs/*.md -t $(SHARE)
	@install -m 644 docs/decisions/*.md -t $(SHARE)/decisions
	@cp -r --no-preserve=mode,ownership etc/grafana etc/prometheus $(SHARE)

uninstall: ## take away what install put there; configuration, keys and state stay
	@rm -rf $(INSTALLED) $(SHARE)
	@rm -f $(DESTDIR)$(PREFIX)/bin/mpq-supervisor $(UNITS)/mpq-supervisor.service $(SAMPLES) $(MANUAL) $(COMPLETION)
	@rm -f $(DESTDIR)$(PREFIX)/lib/sysusers.d/mpq.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/mpq.conf $(NETWORKD)
	@if cmp -s etc/sysctl.d/90-mpq.conf $(SYSCTLS); then rm $(SYSCTLS); fi
	@rmdir --ignore-fail-on-non-empty $(DESTDIR)/etc/mpq 2>/dev/null || true

wheel: venv ## build/mpq-VERSION-….whl, for machines without a compiler that have the same Python and libssl
	@rm -rf build/lib* build/temp.* build/bdist.* build/*.whl
	@$(PY) -m pip wheel -q --disable-pip-version-check --no-deps -w build .
	@ls build/*.whl

deb: ## build/mpq_VERSION_ARCH.deb, with a Python environment of its own
	@mkdir -p build
	@$(MAKE) -s system DEB_COMMANDS="dh:debhelper gcc:gcc"
	@rm -f build/mpq_*.deb
	@debian/rules clean binary >build/deb.log 2>&1 || { tail -n 30 build/deb.log; exit 1; }
	@debian/rules clean >>build/deb.log 2>&1
	@ls build/mpq_*.deb

# Software emulation: behaviour is what is tested there, not speed. The image is built once.
# ONLY="boot lan" runs some groups of tests.
vm-test: venv deb ## the package in a small Debian 12 with systemd, VLANs, networkd, netem; writes build/vm.xml
	@$(MAKE) -s system DEB_FILES= DEB_COMMANDS="mmdebstrap:mmdebstrap qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs depmod:kmod"
	@nice -n 19 $(PY) -m tools.vm build/mpq_*.deb $(ONLY)

clean: ## take away what was built
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info mpq_worker/_datapath.c mpq_worker/_image.c mpq_worker/*.so
