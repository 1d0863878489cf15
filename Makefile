# SPDX-License-Identifier: Apache-2.0
# A front for Meson: on a fresh Debian 12 or newer, as root, `make demo` and
# `make check` do everything from nothing.
BUILD ?= build

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# A program that counts is saved, killed, brought back, and goes on from where it was.
demo: build-packages
	$(MAKE) all
	examples/demo/run $(BUILD)

# All tests; ends with a line "N passed, N failed".
check: test-packages
	$(MAKE) all
	test/all $(BUILD)

$(BUILD)/build.ninja:
	tools/packages build
	meson setup $(BUILD)

build-packages:
	tools/packages build

test-packages:
	tools/packages build test

install: all
	meson install -C $(BUILD)

# What is generated from the tool: doc/errors.md, the table of kinds in README.md.
docs: all
	test/tool/generated $(BUILD)/src/cli/reprise --update

clean:
	rm -rf $(BUILD)

.PHONY: all demo check build-packages test-packages install docs clean
