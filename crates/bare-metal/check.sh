#!/bin/sh
# Builds the bare-metal library for this machine and, where its target is installed, for a
# microcontroller. Fails if meter or verifier pull in std or an allocator.
set -eu
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-../../target/bare-metal}"

cargo build --locked "$@"
echo "bare metal: builds for this machine without std and allocator"

microcontroller=thumbv7em-none-eabihf
if [ -d "$(rustc --print sysroot)/lib/rustlib/$microcontroller" ]; then
    cargo build --locked --target "$microcontroller" "$@"
    echo "bare metal: builds for $microcontroller"
else
    echo "bare metal: target $microcontroller is not installed, not built for it"
fi
