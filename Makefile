# The one entry point, for people and for CI. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
TRIPLE := x86_64-unknown-linux-gnu
TETHER := $(TARGET)/$(TRIPLE)/guest/tether
PROGRAMS := -p bootimage -p hostsim -p endpoint -p machine -p registry
# What the programs are built with: release, or ci for tests (Cargo.toml says what each is).
export PROFILE ?= release
export MOORING_BIN ?= $(abspath $(TARGET)/$(PROFILE))
test unit e2e: PROFILE = ci
# Cargo gives a crate the features that all packages it is asked for want, dev-dependencies too where it is asked for a
# test. So whatever a run of tests builds is asked for by the same packages and with a test: nothing is compiled twice.
SELECTED = $(if $(filter ci,$(PROFILE)),--workspace --bins --test e2e,$(PROGRAMS) --bins)

.PHONY: help setup setup-test build tether iso kernel images clients run registry test lint check bench soak fuzz deny fmt clean programs inputs unit e2e

help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install what is missing to build and run (Debian packages; root)
	@scripts/setup run

setup-test: ## ... and to test: peers, oracles, image tools
	@scripts/setup test

programs:
	@cargo build --profile $(PROFILE) --locked $(SELECTED)

tether:
	@scripts/tether

build: setup programs tether ## Build every program

iso: build ## Boot files on the distribution's kernel package, in target/boot
	@scripts/boot-files packaged

kernel: setup-test programs tether ## Build the trimmed kernel (about 5 minutes, cached in target/kernel) and its boot files, in target/boot-fast
	@scripts/boot-files fast

images: setup-test ## Test images from Debian's packages, in target/images
	@scripts/images

clients: setup-test ## Docker clients from PyPI and npm, in target/clients
	@scripts/clients

run: iso ## Start a virtual container host on this machine, run a first container, stay in the foreground
	@scripts/images busybox
	@scripts/run

registry: setup ## Start a registry with a generated CA and administrator, and print how to use it
	@cargo build --release --locked $(PROGRAMS) --bin registry
	@scripts/registry

# All but the end-to-end tests, the tether in VMs of its own too. The VMs of these tests boot the trimmed kernel, which
# has everything built in. What a test says is shown although it passes: that it was skipped, and why.
unit: tether
	@MOORING_BOOT=$(abspath $(TARGET)/boot-fast) MOORING_TETHER=$(abspath $(TETHER)) cargo test --profile $(PROFILE) --locked --no-fail-fast --workspace --lib --bins --tests -- --show-output $(ARGS)

e2e: programs tether
	@MOORING_E2E=1 cargo test --profile $(PROFILE) --locked --workspace --test e2e -- $(ARGS)

# Images and clients wait for the network and for dpkg much of the time, so they are made beside the programs.
inputs: setup-test
	@$(MAKE) --no-print-directory images clients & beside=$$!; $(MAKE) --no-print-directory programs tether kernel iso; built=$$?; wait $$beside && exit $$built

test: inputs ## Everything, real VMs included (within 40 minutes on 2 cores)
	@failed=0; for part in unit e2e; do $(MAKE) --no-print-directory $$part || failed=1; done; exit $$failed

# LINT=ci where the programs are built so anyway: build scripts and procedural macros are then built once.
lint: LINT ?= dev
lint: ## Formatting, lints, hygiene
	@cargo fmt --all --check
	@cargo clippy --profile $(LINT) --locked --workspace --all-targets -- -D warnings
	@scripts/hygiene

check: lint ## Quick: lints, and tests without VMs
	@cargo test --locked --workspace --exclude tests --lib

bench: inputs ## Benchmarks as ratios against floors and peers; writes target/bench.json
	@cargo build --release --locked $(PROGRAMS) -p tests --bin bench
	@$(TARGET)/release/bench $(ARGS)

soak: inputs ## The long counts, whole; can be resumed; its result goes into SPECIFICATION.md
	@scripts/soak

fuzz: ## Every fuzz target for SECONDS (120) each; a nightly toolchain is needed
	@scripts/fuzz $(SECONDS)

deny: ## Licences, bans and sources of all crates (installs cargo-deny into target/tools)
	@[ -x $(TARGET)/tools/bin/cargo-deny ] || cargo install --locked --root $(TARGET)/tools cargo-deny
	@$(TARGET)/tools/bin/cargo-deny --offline --locked check bans licenses sources

fmt: ## Format the code
	@cargo fmt --all

clean: ## Remove what was built
	@rm -rf $(TARGET) .state
