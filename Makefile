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

bench-routes: ## what a cycle of route steering costs, measured here
	$(CARGO) bench --bench route_watch

coverage: ## line coverage of rules/ and plan/, at least 95 %
	scripts/coverage.sh

SECONDS ?= 3600
soak: ## all four BGP daemons, a change every second, SECONDS=3600; any NOTIFICATION fails
	SOAK_SECONDS=$(SECONDS) $(CARGO) test --test bgp_real -- --ignored --nocapture soak

FUZZ_SECONDS ?= 600
fuzz: ## every fuzz target for FUZZ_SECONDS=600; stable toolchain and a C++ compiler; ASAN=1 with nightly
	SECONDS_EACH=$(FUZZ_SECONDS) scripts/fuzz.sh

# Built first, so that only the measured program is kept on one core. Each line of figures is printed beside its rivals.
bench-anycast: ## withdrawal beside ExaBGP, 10,000 services on one core, 100,000 prefixes beside GoBGP and BIRD (root)
	$(CARGO) build --release
	$(CARGO) bench --no-run --bench anycast_failover --bench anycast_schedule --bench bgp_scale
	$(CARGO) bench --bench anycast_failover
	taskset -c 0 $(CARGO) bench --bench anycast_schedule -- --seconds 60 --samples 0
	$(CARGO) bench --bench bgp_scale

.PHONY: simulate test-kill soak fuzz bench-anycast bench bench-routes coverage help build lab cycle fmt lint unit real packages doc-test chart scripts test

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
