# Everything that is checked here is checked by CI in the same way: .ci/run
# prepares the machine and then calls the targets named in CI_STEPS.
#
# The workspace (go.work) is the list of modules. The pattern `work` and
# `go list -m` follow it, so a new nested module is picked up by itself.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help

GOTESTFLAGS ?=
RUN         ?= .
BENCH       ?= .
BENCHFLAGS  ?=
FUZZTIME    ?= 5s

CHECKS := fmt-check vet staticcheck lint tidy-check

# What CI runs, in this order.
CI_STEPS := $(CHECKS) test race stress bench-smoke bench-guard fuzz-smoke examples demo

# Tools, pinned. STATICCHECK 2026.2.2 is v0.8.2 of its module.
GOFUMPT_VERSION     := v0.12.0
STATICCHECK_VERSION := v0.8.2
GOLANGCI_VERSION    := v2.15.0
BENCHSTAT_VERSION   := v0.0.0-20260908200009-22c9c6c9d4da

BIN         := $(CURDIR)/.bin
GOFUMPT     := $(BIN)/gofumpt-$(GOFUMPT_VERSION)
STATICCHECK := $(BIN)/staticcheck-$(STATICCHECK_VERSION)
GOLANGCI    := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)
BENCHSTAT   := $(BIN)/benchstat-$(BENCHSTAT_VERSION)

# $(call each-module,command): runs the command in every module's folder.
each-module = go list -m -f '{{.Dir}}' | while read -r dir; do \
	echo "$(strip $(1)) ($$dir)"; (cd "$$dir" && $(1)) </dev/null; done

##@ Every day

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Test every module (flags: GOTESTFLAGS, RUN=regexp)
	go test -run '$(RUN)' $(GOTESTFLAGS) work

.PHONY: check
check: $(CHECKS) ## Everything that needs no test run

.PHONY: bench
bench: COUNT ?= 6
bench: ## Benchmark the root package in rounds, so that noise hits all alike (BENCH=regexp COUNT=6)
	@for round in $$(seq $(COUNT)); do \
		go test -run '^$$' -bench '$(BENCH)' -benchmem -count=1 $(GOTESTFLAGS) .; done

.PHONY: compare
compare: ## Measure gravbus beside other libraries, and put that into README (12 minutes)
	go run ./bench -readme $(BENCHFLAGS)

.PHONY: fmt
fmt: $(GOFUMPT) ## Format all Go files
	$(GOFUMPT) -w .

##@ Tests

.PHONY: race
race: ## Test every module under the race detector, in random order
	go test -race -shuffle=on $(GOTESTFLAGS) work

.PHONY: stress
stress: COUNT ?= 10
stress: ## Repeat root and internal tests under -race on 1, 2 and 4 CPUs (COUNT=10, RUN=regexp)
	go test -race -cpu 1,2,4 -count=$(COUNT) -run '$(RUN)' $(GOTESTFLAGS) . ./internal/...

.PHONY: bench-smoke
bench-smoke: ## Run every benchmark a little, to see that it still works
	go test -run '^$$' -bench . -benchtime=10x -count=1 $(GOTESTFLAGS) work

.PHONY: bench-guard
bench-guard: ## Refuse what has become much slower than bench/guard.json allows
	go run ./bench -guard

# `go test -list` prints the names it found, then the package's `ok` line.
.PHONY: fuzz-smoke
fuzz-smoke: ## Run every fuzz target for FUZZTIME (5s)
	@go test -run '^$$' -list '^Fuzz' work \
	| awk '/^Fuzz/ { names[n++] = $$1 } \
		/^ok/ { for (i = 0; i < n; i++) print $$2, names[i]; n = 0 } \
		/^(FAIL|---|panic)/ { print > "/dev/stderr" }' \
	| while read -r pkg name; do \
		echo "$$name ($$pkg)"; \
		$(fuzz-once) || { $(fuzz-flake) && echo 'nothing found, only late: again' && $(fuzz-once); } || exit 1; \
	done

fuzz-log  = $(BIN)/fuzz.log
fuzz-once = { mkdir -p $(BIN) && \
	go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null 2>&1 | tee $(fuzz-log); }
# Up to Go 1.26 a run may end in a bare "context deadline exceeded" when its
# time is up, with nothing found (go.dev/issue/75804). A finding names its input.
fuzz-flake = grep -qx ' *context deadline exceeded' $(fuzz-log) && \
	! grep -qE 'Failing input written|panic:|_test\.go:' $(fuzz-log)

# An example's output.txt is what it must print on its standard output.
.PHONY: examples
examples: ## Run every example and compare with its output.txt
	@for dir in examples/*/; do \
		ls "$$dir"*.go >/dev/null 2>&1 || continue; \
		echo "go run ./$$dir"; \
		if [ -f "$${dir}output.txt" ]; then \
			go run "./$$dir" | diff -u "$${dir}output.txt" -; \
		else \
			go run "./$$dir"; \
		fi; \
	done

.PHONY: demo
demo: ## Run the command's demonstration, as README shows it
	go run ./cmd/gravbus demo
	go run ./cmd/gravbus demo local

##@ Checks

.PHONY: fmt-check
fmt-check: $(GOFUMPT) ## Refuse files that fmt would change
	@files=$$($(GOFUMPT) -l .); [ -z "$$files" ] || { echo "run 'make fmt' for:"; echo "$$files"; exit 1; }

.PHONY: vet
vet: ## go vet in every module
	go vet work

.PHONY: staticcheck
staticcheck: $(STATICCHECK) ## staticcheck in every module
	@$(call each-module,$(STATICCHECK) ./...)

.PHONY: lint
lint: $(GOLANGCI) ## Import rules and a few quiet linters (.golangci.yml)
	@$(call each-module,$(GOLANGCI) run --config $(CURDIR)/.golangci.yml ./...)

# Without the workspace: a module's go.mod must be right for those who see only it.
.PHONY: tidy-check
tidy-check: ## Refuse a go.mod or go.sum that `go mod tidy` would change
	@$(call each-module,GOWORK=off go mod tidy -diff)

##@ Machinery

.PHONY: ci
ci: ## Everything CI runs, in its order
	@for step in $(CI_STEPS); do echo "==> $$step"; $(MAKE) $$step COUNT=1; done

.PHONY: ci-steps
ci-steps:
	@printf '%s\n' $(CI_STEPS)

.PHONY: tools
tools: $(GOFUMPT) $(STATICCHECK) $(GOLANGCI) $(BENCHSTAT) ## Install the pinned tools into .bin

.PHONY: clean
clean: ## Remove what these targets leave behind
	rm -rf $(BIN)
	rm -f *.test *.out *.prof

# $(call install,module,version,package): copies the tool on PATH when it was
# built from exactly that version, else builds it.
define install
@mkdir -p $(BIN)
@tool=$$(command -v $(notdir $(3)) || true); \
if [ -n "$$tool" ] && go version -m "$$tool" \
	| awk '$$1 == "mod" && $$2 == "$(1)" && $$3 == "$(2)" { found = 1 } END { exit !found }'; then \
	cp "$$tool" $@; \
else \
	echo "installing $(notdir $(3)) $(2)"; \
	GOBIN=$(BIN) go install $(3)@$(2); \
	mv $(BIN)/$(notdir $(3)) $@; \
fi
endef

$(GOFUMPT):
	$(call install,mvdan.cc/gofumpt,$(GOFUMPT_VERSION),mvdan.cc/gofumpt)

$(STATICCHECK):
	$(call install,honnef.co/go/tools,$(STATICCHECK_VERSION),honnef.co/go/tools/cmd/staticcheck)

$(GOLANGCI):
	$(call install,github.com/golangci/golangci-lint/v2,$(GOLANGCI_VERSION),github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

$(BENCHSTAT):
	$(call install,golang.org/x/perf,$(BENCHSTAT_VERSION),golang.org/x/perf/cmd/benchstat)
