# make demo   bare Debian host to an answered completion, on a throwaway host   (KEEP=1 leaves the host up)
# make test   every check and test that needs no GPU and no virtual machine
# Both set up everything they need: distribution packages where they run as root, and a virtual environment in .venv.
# The others: test-quick (no throwaway hosts, compiling, downloads of test data or of real runtimes), test-vagrant, lint, and those below.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAB_PACKAGES := mmdebstrap systemd-container iproute2 nftables openssh-client ca-certificates procps python3-venv zstd
TEST_PACKAGES := shellcheck podman runc slirp4netns gcc libc6-dev gpg gpg-agent curl kmod busybox
VAGRANT_PACKAGES := vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients dnsmasq-base qemu-system-x86 qemu-utils fdisk

.PHONY: demo test test-quick test-vagrant accuracy build/contract docs lint setup packages requirements runtime-requirements clean

demo: setup
	@$(BIN)/rackserve lab demo $(if $(KEEP),--keep)

test: setup lint build/model-configs build/contract
	@tools/packages.sh $(TEST_PACKAGES)
	$(BIN)/pytest -m "not vagrant and not gpu"

test-quick: setup lint
	$(BIN)/pytest -m "not lab and not build and not accuracy and not contract and not vagrant and not gpu"

test-vagrant: setup
	@tools/packages.sh $(VAGRANT_PACKAGES)
	$(BIN)/pytest -m vagrant

# Write the tables of docs/accuracy.md anew: the planner against engines' own numbers and against other estimators.
accuracy: setup build/model-configs
	$(BIN)/python -m bench.accuracy.report --configs build/model-configs

build/model-configs: requirements/accuracy.txt
	@PYTHON=$(BIN)/python tools/model_configs.sh

# Real vLLM and SGLang for tests/contract; nothing is done where they are there already.
build/contract:
	@tools/contract_environments.sh

# Write docs/drivers.md anew from the catalogue.
docs: setup
	$(BIN)/python -m rackserve.report.stack_page > docs/drivers.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: packages $(VENV)/ready

packages:
	@tools/packages.sh $(LAB_PACKAGES)

$(VENV)/ready: requirements/dev.txt pyproject.toml
	@tools/venv.sh $(PYTHON) $(VENV)

# Compile the pinned requirements anew. No index is named in them: pip uses the one this machine is set up with.
requirements:
	$(PYTHON) -m venv $(VENV)-compile
	$(VENV)-compile/bin/pip install --quiet pip-tools
	cd requirements && for name in requirements dev; do \
	  ../$(VENV)-compile/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $$name.txt $$name.in; done
	cd requirements && ../$(VENV)-compile/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate --no-header \
	    --output-file ../rackserve/catalog/build-backend.txt build-backend.in
	$(VENV)-compile/bin/python tools/contract_requirements.py

# Compile rackserve/catalog/requirements anew, and check that each file resolves wherever it is promised to. IDS="..." for
# some of them only.
runtime-requirements: setup
	$(BIN)/python tools/runtime_requirements.py $(IDS)

# A test that is skipped for want of something is a failed one there.
test test-all test-vagrant: export RACKSERVE_REQUIRE_ALL := 1

clean:
	rm -rf $(VENV) $(VENV)-compile .mypy_cache .ruff_cache .pytest_cache .hypothesis
