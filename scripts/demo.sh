#!/usr/bin/env bash
# Runs the demo: control plane, router and registry mirror in one process, live backends, traffic, and a story. Needs Rust alone.
# Arguments go to `grey demo`: --check asserts the story without a person and exits; --help lists the others.
# PROFILE chooses the build: release by default, dev with --check, so that a test run's build serves both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One target directory outside the checkout, so that another clone does not build everything again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/grey-router/target}"

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust from https://rustup.rs, then run this again" >&2
  exit 1
fi

profile="${PROFILE:-release}"
if [ -z "${PROFILE:-}" ]; then
  for argument in "$@"; do
    [ "$argument" != --check ] || profile=dev
  done
fi
folder="$profile"
[ "$profile" != dev ] || folder=debug

cargo build --profile "$profile" -p grey-standalone --bin grey
# A relative target directory is one from here.
exec "$CARGO_TARGET_DIR/$folder/grey" demo "$@"
