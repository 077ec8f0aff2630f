# `make demo` to try it, `make test` to check it; both on Debian 12 as root, installing what they need.
# The two packages come from one list of files, in Cargo.toml; `make install DESTDIR=` copies the same.
CARGO ?= cargo
DESTDIR ?=
export CARGO_TARGET_DIR ?= $(CURDIR)/target
RELEASE = $(CARGO_TARGET_DIR)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
DEB = $(CARGO_TARGET_DIR)/debian/console-proxy_$(VERSION)-1_$(shell dpkg --print-architecture 2>/dev/null).deb
RPM = $(CARGO_TARGET_DIR)/generate-rpm/console-proxy-$(VERSION)-1.$(shell uname -m).rpm
# All but those that need release programs, packages or a scratch host. The feature is on for them too: one build serves all.
UNIT_TESTS = $(filter-out e2e packages instructions,$(basename $(notdir $(wildcard tests/*.rs)) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))))
TOOLS ?=
# All that the page is made of, but not what is made from it.
WEB_SOURCES = $(shell find web \( -name node_modules -o -path web/dist \) -prune -o -type f -print 2>/dev/null)
WEB_BUILT = $(CARGO_TARGET_DIR)/web.stamp
# Which end-to-end tests: make e2e TESTS='hook units'
TESTS ?=
# Which of the browser's tests: make browser FILES='serial entry'
FILES ?=

# Write counts instead of checking them: make callgrind RECORD=1
RECORD ?=
# What make fuzz runs, and for how long each: all targets, or make fuzz TARGET=ticket SECONDS=600
TARGET ?=
SECONDS ?= 60
# What make bench measures: make bench CASES='serial-1 echo' TOOLS='console-proxy websockify' ROUNDS=3
CASES ?=
PART ?= tools
ROUNDS ?= 5
BENCH_OPTIONS ?=

.PHONY: help demo test e2e unit page browser callgrind fuzz bench web again deb rpm binaries install needs clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo               a scratch host with two guests, until Ctrl-C
demo: needs deb
	@tests/host/demo.sh $(DEB)

## make test               all tests, end-to-end ones included
test: needs deb rpm unit page callgrind e2e browser

unit:
	@echo "test: unit and integration tests"
	@$(CARGO) test --quiet --features e2e --lib $(UNIT_TESTS:%=--test %)

# The page's own logic.
page: web
	@echo "test: the page's own logic"
	@cd web && npm run --silent test

## make callgrind          instructions of the way of the bytes against tests/instructions.txt; RECORD=1 writes it
callgrind: needs binaries
	@echo "test: instructions of the way of the bytes"
	@RECORD="$(RECORD)" $(CARGO) test --quiet --features e2e --test instructions

## make e2e [TESTS=NAME]   the end-to-end tests alone, in a scratch host
e2e: needs deb rpm
	@echo "test: the packages"
	@$(CARGO) test --quiet --features e2e --test packages
	@tests/host/e2e.sh $(DEB) $(TESTS)

## make browser [FILES=NAME]   the page in a real browser, in a scratch host; screenshots in target/browser
browser: needs deb
	@echo "test: the page in a browser"
	@tests/host/browser.sh $(DEB) $(FILES)
	@echo "test: every state of the page, with a proxy that is played"
	@cd web && npm run --silent states -- $(CARGO_TARGET_DIR)/browser/states

## make fuzz [TARGET=NAME] [SECONDS=60]   libFuzzer, on stable Rust; what it finds stays in fuzz/artifacts
fuzz:
	@fuzz/run.sh $(SECONDS) $(TARGET)

## make bench              beside other tools: a table, target/bench/results.json and results.svg; some minutes.
##      [CASES=...] [TOOLS=...] [ROUNDS=5] [PART=all]   less, or more; docs/benchmarks.md has the names
bench: $(if $(filter guests unit all,$(PART)),needs deb)
	@tests/host/install-needs.sh bench
	@echo "bench: building the release programs and what measures them (some minutes at first)"
	@$(CARGO) build --quiet --release --bins
	@benches/run.sh $(PART) $(CARGO_TARGET_DIR) $(DEB) --cases "$(CASES)" --tools "$(TOOLS)" --rounds $(ROUNDS) $(BENCH_OPTIONS)

## make web                the page, in web/dist
web: $(WEB_BUILT)

# A folder that was removed is made again, too.
$(WEB_BUILT): $(WEB_SOURCES) $(if $(wildcard web/dist/index.html),,again)
	@tests/host/install-needs.sh web
	@echo "web: building the page"
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build
	@mkdir -p $(@D) && touch $@

## make deb                the Debian package, in target/debian
deb: web binaries
	@echo "deb: packing $(notdir $(DEB))"
	@$(CARGO) deb --quiet --no-build --output $(DEB)

## make rpm                the RPM package, in target/generate-rpm
rpm: web binaries
	@echo "rpm: packing $(notdir $(RPM))"
	@mkdir -p $(dir $(RPM))
	@packaging/files.sh rpm > $(CARGO_TARGET_DIR)/rpm-files.toml
	@$(CARGO) generate-rpm --metadata-overwrite=$(CARGO_TARGET_DIR)/rpm-files.toml --output $(RPM)

binaries:
	@tests/host/install-needs.sh build
	@echo "build: release binaries (some minutes at first)"
	@$(CARGO) build --quiet --release --bins
	@mkdir -p $(RELEASE)/completions
	@$(RELEASE)/console-proxy completions bash >$(RELEASE)/completions/console-proxy.bash
	@$(RELEASE)/console-proxy completions zsh >$(RELEASE)/completions/_console-proxy
	@$(RELEASE)/console-proxy completions fish >$(RELEASE)/completions/console-proxy.fish

## make install DESTDIR=   the same files, under DESTDIR
install: web
	@test -x $(RELEASE)/console-proxyd || { echo "install: run make binaries first" >&2; exit 1; }
	@BIN_DIR=$(RELEASE) packaging/files.sh install "$(DESTDIR)/"

needs:
	@tests/host/install-needs.sh

clean:
	$(CARGO) clean
