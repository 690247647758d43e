# Lists the recipes.
default:
    @just --list

# Runs the demo: a control plane, a router, live backends and traffic. `just demo --check` asserts the story.
demo *ARGS:
    ./scripts/demo.sh {{ARGS}}

# Runs every test on real servers. `just test -p grey-core` runs one crate's.
test *ARGS:
    ./scripts/test.sh {{ARGS}}

# Attacks every port of every service in every way, one after the other. `GREY_HOSTILE_PORT=Router just hostile` attacks some.
hostile:
    GREY_HOSTILE="${GREY_HOSTILE:-full}" ./scripts/test.sh --release --workspace --test system hostile_clients -- --nocapture

# Measures: one JSON line per yardstick. `just bench route_vs_echo` measures one.
bench *NAMES:
    cargo run --release -p grey-bench -- {{NAMES}}

# Refuses what the compiler and clippy warn of, and wrong formatting.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Formats.
fmt:
    cargo fmt --all

# Builds the API documentation.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Compiles the contracts and checks their style and field numbers.
proto:
    cargo test -p grey-proto

# Runs what must pass before a change lands.
ci:
    .ci/run
