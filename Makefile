# make demo   bare Debian host to an answered completion, on a throwaway host   (KEEP=1 leaves the host up)
# make test   what has to pass before a change lands: needs no GPU and no virtual machine, at most 30 minutes on two cores
# Both set up everything they need: distribution packages where they run as root, and a virtual environment in .venv.
# The others: test-quick (no throwaway hosts, compiling, downloads of test data or of real runtimes), test-vagrant, lint, and those below.

SHELL := /bin/bash
PYTHON ?= python3
PART ?= 1/1
VENV := .venv
BIN := $(VENV)/bin
LAB_PACKAGES := mmdebstrap systemd-container iproute2 nftables openssh-client ca-certificates procps python3-venv zstd
TEST_PACKAGES := shellcheck podman runc slirp4netns gcc libc6-dev gpg gpg-agent curl kmod busybox
VAGRANT_PACKAGES := vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients dnsmasq-base qemu-system-x86 qemu-utils fdisk

.PHONY: demo test test-all test-all-report record-shares test-quick test-vagrant accuracy build/contract build/model-configs \
  vagrant-packages docs lint lint-only setup packages requirements runtime-requirements clean

demo: setup
	@$(BIN)/rackserve lab demo $(if $(KEEP),--keep)

test: setup
	@tools/packages.sh $(TEST_PACKAGES)
	@$(BIN)/python -m tools.suite test

# Everything but what needs a GPU, in n parts of at most 45 minutes: PART=i/n. What has passed for this code is not run again.
test-all: setup
	@tools/packages.sh $(TEST_PACKAGES)
	@$(BIN)/python -m tools.suite all '$(PART)'

# The complete result of test-all for this code; an error where any of it is missing or failed.
# An environment that is not up to date will do: tests may be at work in it.
test-all-report:
	@[ -e $(VENV)/ready ] || tools/venv.sh $(PYTHON) $(VENV)
	@$(BIN)/python -m tools.suite report

# Write tests/shares.toml anew from the last runs in which everything passed.
record-shares:
	@[ -e $(VENV)/ready ] || tools/venv.sh $(PYTHON) $(VENV)
	@$(BIN)/python -m tools.suite record

test-quick: setup lint
	$(BIN)/pytest -m "not full and not lab and not build and not accuracy and not contract and not vagrant and not gpu"

test-vagrant: setup vagrant-packages
	$(BIN)/pytest -m vagrant

# Write the tables of docs/accuracy.md anew: the planner against engines' own numbers and against other estimators.
accuracy: setup build/model-configs
	$(BIN)/python -m bench.accuracy.report --configs build/model-configs

# What tests need beside packages, made once per machine and kept in RACKSERVE_TEST_CACHE (docs/testing.md).
build/model-configs:
	@$(PYTHON) -m tools.suite.prepare model-configs

build/contract:
	@$(PYTHON) -m tools.suite.prepare contract

vagrant-packages:
	@tools/packages.sh $(VAGRANT_PACKAGES)

# Write docs/drivers.md anew from the catalogue.
docs: setup
	$(BIN)/python -m rackserve.report.stack_page > docs/drivers.md

lint: setup lint-only

# Beside tests that run, whose environment nobody may make anew.
lint-only:
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

# Other code than this checkout's, or none of it.
unexport PYTHONPATH PYTHONSAFEPATH

# A test that is skipped for want of something is a failed one there.
test test-all test-vagrant: export RACKSERVE_REQUIRE_ALL := 1

clean:
	rm -rf $(VENV) $(VENV)-compile .mypy_cache .ruff_cache .pytest_cache .hypothesis
