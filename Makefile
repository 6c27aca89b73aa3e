# The two commands of the README, and what they share. Needs rustup, gcc and git; gets the rest itself.
#
#   make demo    builds the engine and runs `levada demo`
#   make test    checks format, lints and docs, and runs every test
#   make build   builds `levada`, and says where it is
#
# Build output lies outside the checkout, so that a second clone on the same machine finds it.

SHELL := /bin/bash
LEVADA_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/levada
export LEVADA_CACHE
export CARGO_TARGET_DIR ?= $(LEVADA_CACHE)/target
CARGO = setup=$$(.ci/setup $(NEEDED_FOR)) && eval "$$setup" && cargo
DEMO ?=

.PHONY: demo test build format lint docs unit

demo: build
	@$(CARGO_TARGET_DIR)/release/levada demo $(DEMO)

build:
	@$(CARGO) build --release --locked --package levada-engine
	@echo "built $(CARGO_TARGET_DIR)/release/levada"

test: format lint docs unit

format:
	@$(CARGO) fmt --all --check

lint:
	@$(CARGO) clippy --release --locked --workspace --all-targets -- --deny warnings

docs: export RUSTDOCFLAGS = --deny warnings
docs:
	@$(CARGO) doc --release --locked --workspace --no-deps --document-private-items

unit: NEEDED_FOR := tests
unit:
	@$(CARGO) build --release --locked --workspace --all-targets
	@$(CARGO) test --release --locked --workspace --no-fail-fast
