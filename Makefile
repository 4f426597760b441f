# One command per target; each installs what it needs by itself on a bare Debian 12.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python
# Debian packages by the command that proves them present.
DEB_COMMANDS := ip:iproute2 nft:nftables iperf3:iperf3 ping:iputils-ping ethtool:ethtool tcpdump:tcpdump gcc:gcc
DEB_FILES := /usr/lib/python3.11/ensurepip/__init__.py:python3-venv /usr/include/stdio.h:libc6-dev \
             /usr/lib/$(shell uname -m)-linux-gnu/libseccomp.so.2:libseccomp2
PATH := /usr/sbin:/sbin:$(PATH)
export PATH

.PHONY: help system venv demo test lint bench acceptance clean

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

$(VENV)/.ready: setup.cfg setup.py pyproject.toml | system
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -e .[dev] 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

build/relay: tools/relay.c | system
	@mkdir -p build
	@gcc -O2 -Wall -Wextra -Werror -o $@ $<

demo: venv build/relay ## nine tunnels, live, with loss and kills; writes build/demo.json
	@$(PY) -m tools.demo

lint: venv
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

test: lint build/relay ## lint, types, imports, and every test
	@$(PY) -m pytest

bench: venv build/relay ## throughput, latency, memory beside bare veth; writes build/bench.json
	@$(PY) -m tools.bench

acceptance: venv build/relay ## isolation, shared link, shared core, 50 kills, start-up; writes build/acceptance.json
	@$(PY) -m tools.acceptance

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
