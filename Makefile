CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(TARGET)/tools
export PATH := $(abspath $(TOOLS))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help test simulation lint smells bench bench-store bench-refresh bench-watch soak tools

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: lint ## everything: lint, then all tests
	rm -rf $(TARGET)/tmp/emitted
	env -u CLAVIGER_SEED CLAVIGER_TOOLS=1 $(CARGO) test --locked
	$(MAKE) simulation
	@if [ -n "$$CLAVIGER_GITLEAKS_RULES" ]; then \
		$(CARGO) test --locked --test emitted -- --ignored; \
	else \
		echo "left out: the search of all output by gitleaks' rules; set CLAVIGER_GITLEAKS_RULES to a gitleaks.toml"; \
	fi

simulation: ## the refresh engine in ten thousand worlds: half a minute, after minutes to build
	env -u CLAVIGER_SEED CLAVIGER_SEEDS=10000 $(CARGO) test --locked --profile simulation --test simulation

lint: tools smells ## formatting, lints, documentation, the contract, licences, smells
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' $(CARGO) doc --locked --no-deps --document-private-items
	buf lint
	buf format --diff --exit-code
	cargo-deny --offline --log-level error check licenses bans sources

smells: ## what reviews keep finding and no lint does
	@scripts/smells.sh

bench: tools ## speed, as ratios measured in one run: minutes to build, then four more
	$(CARGO) bench --locked --profile dist --bench hot_path

bench-store: ## the store beside raw sled and at a million connections: a quarter of an hour and 20 GB under target/
	$(CARGO) bench --locked --profile dist --bench store -- $(PARTS)

bench-refresh: ## the refresh engine: ten thousand due in one second, and how many one node keeps fresh: ten minutes
	$(CARGO) bench --locked --profile dist --bench refresh -- $(PARTS)

bench-watch: ## twenty thousand watchers: what they cost, and whom: minutes to build, then five more
	$(CARGO) bench --locked --profile dist --bench watch -- $(STREAMS)

soak: ## the long form of the long tests
	env -u CLAVIGER_SEED CLAVIGER_SOAK=1 CLAVIGER_TOOLS=1 $(CARGO) test --locked --release -- \
		--skip the_invariants_hold_in_every_world
	env -u CLAVIGER_SEED -u CLAVIGER_SEEDS CLAVIGER_SOAK=1 $(CARGO) test --locked --profile simulation --test simulation
	scripts/broken-on-purpose.sh

tools: ## installs what the tests need beyond Rust, a C compiler and make
	@scripts/tools.sh $(TOOLS)
