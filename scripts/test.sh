#!/usr/bin/env bash
# Runs every test. Installs the real servers that they start (Redis, PostgreSQL, MariaDB, Nacos) if absent.
# Arguments go to `cargo test`, for example: ./scripts/test.sh -p grey-router
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One target directory outside the checkout, so that another clone does not build everything again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/grey-router/target}"

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust from https://rustup.rs, then run this again" >&2
  exit 1
fi

./scripts/install-servers.sh

if [ "$#" -gt 0 ]; then
  exec cargo test --no-fail-fast "$@"
fi
# The binaries first: tests of whole processes start them.
cargo build --workspace --bins
exec cargo test --workspace --no-fail-fast
