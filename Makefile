# `make test` is what CI checks; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
ifdef NEXTEST
RUN_TESTS = $(CARGO) nextest run --no-tests pass --no-fail-fast
else
RUN_TESTS = $(CARGO) test --lib --bins --tests
endif

bench: ## what the agent costs and how quick a failover is, measured here
	$(CARGO) bench --bench agent

coverage: ## line coverage of rules/ and plan/, at least 95 %
	scripts/coverage.sh

.PHONY: test-kill bench coverage help build lab cycle simulate fmt lint unit real packages doc-test chart scripts test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## the release binary
	$(CARGO) build --release

lab: ## two agents and two simulated sites on loopback
	$(CARGO) run --release -- lab

cycle: ## the lab through all three transitions; exits 0 when they all worked
	$(CARGO) run --release -- lab --cycle

simulate: ## 1,000 simulated site-days with more than twenty faults a day, and 20 seeds twice (release build)
	$(CARGO) run --release -- lab --seeds 1..500
	$(CARGO) run --release -- lab --seeds 1..20 --twice

fmt: ## formatting, checked only
	$(CARGO) fmt --check

lint: ## clippy, warnings are errors
	$(CARGO) clippy --all-targets -- -D warnings

scripts: ## syntax of the shell scripts
	for file in .ci/run scripts/*.sh; do bash -n "$$file"; done

packages: ## the Debian packages that the tests with real components need
	scripts/install-test-packages.sh

unit: ## tests that need nothing but the toolchain
ifdef NEXTEST
	$(RUN_TESTS) -E 'not binary(/real/)'
else
	$(CARGO) test --lib --bins
endif

real: packages ## tests against real Patroni, PostgreSQL, DNS and BGP daemons
	$(CARGO) test --test real_parts

# KILL_CASE=<case> runs one case, KILL_SCENARIO=<name> one transition.
test-kill: ## kill -9 of the real binary at every step of every transition; prints a table
	KILL_CASES=all $(CARGO) test --test kill_matrix killed_at_any_step -- --nocapture

doc-test: ## examples in the documentation
	$(CARGO) test --doc

chart: ## helm lint, helm template, Kubernetes' schemas
	scripts/check-helm.sh

# The runner comes last: its closing line is the verdict that .ci/run repeats.
test: fmt scripts packages lint chart doc-test ## everything CI checks
	$(RUN_TESTS)
