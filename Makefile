# inferd: `make run` shows it working, `make test` checks everything. Both bring what they need into build/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build runtime run test unit race memory lint fuzz fuzz-short e2e clients bench soak crash test-gpu deb deb-binary test-deb clean schemas swaps bench-peers bench-growth soak-short test-system

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
# Where the tests and the demo find TensorFlow: a directory given by the user, or what `make runtime` fetched.
RUNTIME := $(if $(LIBTENSORFLOW),$(LIBTENSORFLOW),$(CURDIR)/build/runtime)
FUZZTIME ?= 60s
SOAK ?= 30m

build: ## the binary, at build/inferd
	@mkdir -p build
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o build/inferd ./cmd/inferd

runtime: ## the pinned TensorFlow runtime, at build/runtime
	@tools/fetch.sh runtime

run: runtime ## serve a real model, prove it, stay in the foreground; STREAM=1: prove it over the WebSocket
	@tools/fetch.sh model
	@$(MAKE) --no-print-directory build
	@$(GO) build -o build/demo ./tools/demo
	@exec build/demo $(if $(STREAM),-stream) -simple build/models -- --models-dir build/models --runtime '$(RUNTIME)' --state-dir build/state

test: runtime lint race memory schemas fuzz-short e2e test-deb soak-short test-system ## everything the project checks
	@echo "all checks passed"

unit: ## the Go tests, without the race detector
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test ./...

race: ## the Go tests with the race detector, libtensorflow loaded too
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test -race -timeout 25m ./...

memory: ## the tests that count megabytes, which the race detector would take for itself
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test -count=1 -v -run 'MemoryLimit|Cgroup|TenModels|ThatGrows|Pressure' ./appliance ./inference/worker | grep --line-buffered -E '^(---|ok|FAIL|    [a-z_]*_test.go|panic)'

schemas: ## the manifests and examples of packaging/, held to the types of those who read them
	cd tools/schemas && $(GO) test ./...

lint: ## go vet and the pinned golangci-lint
	$(GO) vet ./...
	@mkdir -p build
	@test -x build/golangci-lint -a build/golangci-lint -nt tools/lint/go.mod || (echo "building golangci-lint (once) ..." && \
	  cd tools/lint && $(GO) build -o ../../build/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	build/golangci-lint run ./...
	cd tools/deb && ../../build/golangci-lint run ./...

fuzz-short: ## every fuzz target for a few seconds, two packages at a time
	@LANES=2 $(MAKE) --no-print-directory fuzz FUZZTIME=4s

fuzz: ## every fuzz target for FUZZTIME (60s unless set)
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' tools/fuzz.sh

e2e: build runtime ## the real clients against a running inferd
	@tools/fetch.sh venv
	LIBTENSORFLOW='$(RUNTIME)' build/venv/bin/python tools/e2e/run.py build/inferd
	LIBTENSORFLOW='$(RUNTIME)' build/venv/bin/python tools/e2e/examples/run.py build/inferd
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test -count=1 -run PythonExample ./tools/deploy
	@tools/fetch.sh triton
	LIBTENSORFLOW='$(RUNTIME)' build/triton/bin/python tools/e2e/oip/run.py build/inferd
	cd tools/e2e/oipgrpc/grpcurl && $(GO) build -o ../../../../build/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
	LIBTENSORFLOW='$(RUNTIME)' build/triton/bin/python tools/e2e/oipgrpc/run.py build/inferd build/grpcurl
	$(GO) run ./tools/crash -inferd build/inferd -runtime '$(RUNTIME)' -kills 10
	@tools/fetch.sh pyclient
	LIBTENSORFLOW='$(RUNTIME)' INFERD=build/inferd build/pyclient/bin/python -m pytest -q -p no:cacheprovider clients/python
	LIBTENSORFLOW='$(RUNTIME)' build/pyclient/bin/python tools/e2e/browser.py build/inferd
	node=$$(tools/fetch.sh jsclient) && LIBTENSORFLOW='$(RUNTIME)' NODE="$$node" build/pyclient/bin/python tools/e2e/ws/conform.py build/inferd
	LIBTENSORFLOW='$(RUNTIME)' build/pyclient/bin/python tools/e2e/web/web.py build/inferd

bench: build runtime ## the figures the project is held to, as ratios
	LIBTENSORFLOW='$(RUNTIME)' $(GO) run ./tools/bench -inferd build/inferd

# What they install and make stays in build/peers. OUT=docs writes the repository's own report. TFS=host:port and OVMS=host:port (TFS_GRPC, OVMS_GRPC) drive
# servers that you started with the models of build/peers/models.
OUT ?= build/peers/report
PEERS = LIBTENSORFLOW='$(RUNTIME)' build/bench-peers -inferd build/inferd -out '$(OUT)' $(if $(QUICK),-quick) $(PEERS_FLAGS)

bench-peers: build runtime ## inferd beside Triton, MLServer, FastAPI, ONNX Runtime, OpenVINO: tables, ratios, pictures; QUICK=1: a shorter form
	$(GO) build -o build/bench-peers ./tools/peers
	$(PEERS)

bench-growth: build runtime ## the cost of a request against connections, models, bytes, jobs: pictures
	$(GO) build -o build/bench-peers ./tools/peers
	$(PEERS) -only growth

swaps: build runtime ## 200 swaps under load: nothing fails, nothing grows; about 25 minutes
	LIBTENSORFLOW='$(RUNTIME)' $(GO) run ./tools/bench -inferd build/inferd -only swaps -swaps 200

soak: build runtime ## mixed load for SOAK (30m unless set; 72h is fine): memory, descriptors, threads, disk stay flat
	$(GO) run ./tools/soak -inferd build/inferd -runtime '$(RUNTIME)' -for $(SOAK)

test-system: ## the packages under a real systemd as PID 1, in namespaces; needs root and mmdebstrap, and says so; INFERD_LONG=1: longer
	@GO='$(GO)' tools/test-system.sh

soak-short: ## one minute of it, for the checks
	@$(MAKE) --no-print-directory soak SOAK=1m

crash: build runtime ## the daemon killed 500 times under submits: nothing lost, nothing doubled; and the queue's file, longer; about 30 minutes
	$(GO) run ./tools/crash -inferd build/inferd -runtime '$(RUNTIME)' -kills 500
	INFERD_LONG=1 INFERD_CRASH_KILLS=500 INFERD_CRASH_CUTS=1050 $(GO) test -count=1 -timeout 2h -v -run 'QueueKilled|QueuePowerCut|QueueRandom' ./storage | grep --line-buffered -E '^(---|ok|FAIL|panic)|^ +(---|[a-z_]*_test.go)'

# ARCH is Debian's name and Go's. What is packed has the time of the commit, so that the same commit gives the same bytes.
ARCH ?= $(shell $(GO) env GOARCH)
DEB_VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo "0.0~$$(git rev-list --count HEAD 2>/dev/null).$(VERSION)")
DEB_OUT ?= build/deb
DEB_PACKAGES ?= inferd inferd-runtime-cpu
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
DEB_MACHINE := $(if $(filter arm64,$(ARCH)),aarch64,x86_64)
DEB_CC ?= $(CURDIR)/build/zig/zig cc -target $(DEB_MACHINE)-linux-gnu.2.31
DEB_NATIVE := $(filter $(shell $(GO) env GOARCH),$(ARCH))
# Where libtensorflow for ARCH lies: what the tests use, on a machine of that kind.
DEB_RUNTIME := $(if $(DEB_NATIVE),$(RUNTIME),$(CURDIR)/build/runtime-$(ARCH))
DEB_BUILD = ZIG_GLOBAL_CACHE_DIR='$(CURDIR)/build/zig-cache' CGO_ENABLED=1 GOARCH=$(ARCH) CC='$(DEB_CC)' $(GO) build -trimpath -buildvcs=false -buildmode=pie \
  -ldflags '-s -w -extldflags -s -X main.version=$(VERSION)'
DEB_FLAGS = -arch $(ARCH) -version '$(DEB_VERSION)' -epoch $(SOURCE_DATE_EPOCH) -binary build/inferd-$(ARCH) -manual build/manual -out '$(DEB_OUT)' \
  $(if $(DEB_NATIVE),,-strip $(DEB_MACHINE)-linux-gnu-strip)

deb: deb-binary ## the packages for ARCH (amd64, arm64), in build/deb: zstd, or xz with RELEASE=1; GPU=1: the runtime for GPUs too (3 GB to fetch)
	@$(if $(filter inferd-runtime-cpu,$(DEB_PACKAGES)),ARCH=$(ARCH) tools/fetch.sh runtime)
	build/mkdeb $(DEB_FLAGS) -compress $(if $(RELEASE),xz,zstd) -runtime '$(DEB_RUNTIME)' $(DEB_PACKAGES)
	$(if $(GPU),tools/fetch.sh runtime-gpu && build/mkdeb $(DEB_FLAGS) -compress zstd -runtime build/runtime-gpu inferd-runtime-gpu)

# What fails here for want of a tool is skipped, with a line that says so: lintian, root, a file system that can be laid over another.
test-deb: deb-binary ## the packages for ARCH: the same bytes twice, glibc, lintian; and, of this machine's kind, install, upgrade, remove, purge
	@mkdir -p build/again
	$(DEB_BUILD) -o build/again/inferd-$(ARCH) ./cmd/inferd
	cd tools/deb && $(GO) vet ./... && INFERD_DEB_ARCH=$(ARCH) INFERD_DEB_AGAIN='$(CURDIR)/build/again/inferd-$(ARCH)' $(GO) test -count=1 -timeout 20m -v ./... | grep --line-buffered -E '^(---|ok|FAIL|    [a-z_]*_test.go|panic)|^ +(E|W): '

# deb-binary is what the packages are made of: the binary for the oldest glibc, what it says of itself, and who packs it.
deb-binary:
	@tools/fetch.sh zig
	@mkdir -p build
	$(DEB_BUILD) -o build/inferd-$(ARCH) ./cmd/inferd
	@rm -rf build/manual
	$(if $(DEB_NATIVE),build/inferd-$(ARCH),$(GO) run -ldflags '$(LDFLAGS)' ./cmd/inferd) manual build/manual
	cd tools/deb && $(GO) build -o ../../build/mkdeb .

test-gpu: build ## serve, swap, memory back and out-of-memory on a GPU; says plainly when there is none
	tools/test-gpu.sh

clean: ## everything that was made here, the fetched runtime included
	rm -rf build
