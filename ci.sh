#!/bin/sh
# Everything that must be green before a commit, fastest failure first.
# `ci.sh full` adds tools that are installed by hand, and fails, naming it, when one is missing.
set -eu
cd "$(dirname "$0")"

cargo fmt --all --check
python3 vectors/check.py
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
sh crates/bare-metal/check.sh

[ "${1:-}" = full ] || exit 0
typos
cargo deny --locked check
cargo machete
