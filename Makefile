# inferd: `make run` shows it working, `make test` checks everything. Both bring what they need into build/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build runtime run test unit race memory lint fuzz fuzz-short e2e clients bench swaps soak soak-short crash test-system test-gpu clean

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
	@exec build/demo $(if $(STREAM),-stream) -- --models-dir build/models --runtime '$(RUNTIME)' --state-dir build/state

test: runtime lint race memory fuzz-short e2e soak-short test-system ## everything the project checks
	@echo "all checks passed"

unit: ## the Go tests, without the race detector
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test ./...

race: ## the Go tests with the race detector, libtensorflow loaded too
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test -race -timeout 15m ./...

memory: ## the tests that count megabytes, which the race detector would take for itself
	LIBTENSORFLOW='$(RUNTIME)' $(GO) test -count=1 -v -run 'MemoryLimit|Cgroup|TenModels|ThatGrows|Pressure' ./appliance ./inference/worker | grep --line-buffered -E '^(---|ok|FAIL|    [a-z_]*_test.go|panic)'

lint: ## go vet and the pinned golangci-lint
	$(GO) vet ./...
	@mkdir -p build
	@test -x build/golangci-lint -a build/golangci-lint -nt tools/lint/go.mod || (echo "building golangci-lint (once) ..." && \
	  cd tools/lint && $(GO) build -o ../../build/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	build/golangci-lint run ./...

fuzz-short: ## every fuzz target for a few seconds
	@$(MAKE) --no-print-directory fuzz FUZZTIME=4s

fuzz: ## every fuzz target for FUZZTIME (60s unless set)
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' tools/fuzz.sh

e2e: build runtime ## the real clients against a running inferd
	@tools/fetch.sh venv
	LIBTENSORFLOW='$(RUNTIME)' build/venv/bin/python tools/e2e/run.py build/inferd
	$(GO) run ./tools/crash -inferd build/inferd -runtime '$(RUNTIME)' -kills 10
	@tools/fetch.sh pyclient
	LIBTENSORFLOW='$(RUNTIME)' INFERD=build/inferd build/pyclient/bin/python -m pytest -q -p no:cacheprovider clients/python
	LIBTENSORFLOW='$(RUNTIME)' build/pyclient/bin/python tools/e2e/browser.py build/inferd
	node=$$(tools/fetch.sh jsclient) && LIBTENSORFLOW='$(RUNTIME)' NODE="$$node" build/pyclient/bin/python tools/e2e/ws/conform.py build/inferd

bench: build runtime ## the figures the project is held to, as ratios
	LIBTENSORFLOW='$(RUNTIME)' $(GO) run ./tools/bench -inferd build/inferd

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

test-gpu: build ## serve, swap, memory back and out-of-memory on a GPU; says plainly when there is none
	tools/test-gpu.sh

clean: ## everything that was made here, the fetched runtime included
	rm -rf build
