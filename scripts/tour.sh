#!/usr/bin/env bash
# Runs the README's tour against a standalone process on free ports and checks each answer.
# A line `#> text` after a command: its output must contain the text. `#! text`: it must fail, saying the text.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/grey-router/target}"
cargo build --quiet -p grey-standalone --bin grey
mkdir -p "$CARGO_TARGET_DIR"
PATH="$(cd "$CARGO_TARGET_DIR" && pwd)/debug:$PATH"

work="$(mktemp -d)"
GREY__ROUTER__GRPC=127.0.0.1:0 GREY__ROUTER__HTTP=127.0.0.1:0 \
GREY__CONTROL_PLANE__GRPC=127.0.0.1:0 GREY__CONTROL_PLANE__HTTP=127.0.0.1:0 \
GREY__REGISTRY_SYNC__GRPC=127.0.0.1:0 GREY__REGISTRY_SYNC__HTTP=127.0.0.1:0 \
GREY__STANDALONE__INSTANCES="$PWD/docs/examples/instances.yaml" \
  grey standalone --data-dir "$work/data" >"$work/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

for _ in $(seq 300); do
  grep -q '^data ' "$work/log" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
GREY_CONTROL="$(sed -n 's/^control plane *gRPC \([^ ]*\).*/\1/p' "$work/log")"
GREY_ROUTER_URL="$(sed -n 's/^router *gRPC \([^ ]*\).*/\1/p' "$work/log")"
GREY_REGISTRY_SYNC="$(sed -n 's/^registry-sync *gRPC \([^ ]*\).*/\1/p' "$work/log")"
export GREY_CONTROL GREY_ROUTER_URL GREY_REGISTRY_SYNC

fail() { printf 'tour: %s\n' "$1" >&2; exit 1; }

output="" status=0 command="" checks=0
settle() { # A command without a `#!` line must have succeeded.
  [ "$status" -eq 0 ] || fail "\`$command\` failed: $output"
}
while IFS= read -r line; do
  case "$line" in
    '#> '*)
      settle
      [[ "$output" == *"${line#'#> '}"* ]] || fail "\`$command\` did not say '${line#'#> '}': $output"
      checks=$((checks + 1)) ;;
    '#! '*)
      [ "$status" -ne 0 ] || fail "\`$command\` was not refused"
      [[ "$output" == *"${line#'#! '}"* ]] || fail "\`$command\` did not say '${line#'#! '}': $output"
      status=0
      checks=$((checks + 1)) ;;
    *)
      settle
      command="$line"
      printf '$ %s\n' "$command"
      status=0
      output="$(bash -c "$command" 2>&1)" || status=$?
      printf '%s\n' "$output" ;;
  esac
done < <(awk '/^<!-- tour -->$/ { wanted = 1; next } wanted && /^```sh$/ { inside = 1; wanted = 0; next } /^```$/ { inside = 0 } inside' README.md)
settle
[ "$checks" -ge 10 ] || fail "only $checks answers were checked: are the blocks still marked with <!-- tour -->?"
printf 'tour: %s answers as the README says\n' "$checks"
