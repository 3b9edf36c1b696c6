#!/bin/sh
# Everything that must be green before a commit, fastest failure first. With `full` also what takes
# longer.
set -eu
cd "$(dirname "$0")"

cargo fmt --all --check
python3 vectors/check.py
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
sh crates/bare-metal/check.sh
if [ "${1:-}" = full ]; then
    sh crates/bkss/openapi.sh
fi
