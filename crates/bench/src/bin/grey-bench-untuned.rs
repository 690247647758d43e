//! Servers of which nothing is tuned, the system's allocator included, to be measured against.

fn main() -> anyhow::Result<()> {
    grey_bench::untuned()
}
