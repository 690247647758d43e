//! Reading the tenant API, in the ways in which it succeeds and fails.

mod credentials;
mod encryption;
mod failing;
mod listing;

use std::time::Duration;

use grey_tenant_sync::mapping;
use grey_tenant_sync::source::{Error, Options, Paging, PagingKind, Retries, Roster, Source};
use tokio::time::timeout;

use crate::upstream::Upstream;

/// Longer than any reading here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Patient enough for a busy machine, with short waits.
fn options(upstream: &Upstream) -> Options {
    Options {
        url: upstream.url(),
        retries: Retries { attempts: 3, first: Duration::from_millis(1), max: Duration::from_millis(20) },
        ..Options::default()
    }
}

fn paged(upstream: &Upstream, kind: PagingKind, size: u32) -> Options {
    Options { paging: Paging { kind, size, ..Paging::default() }, ..options(upstream) }
}

fn source(options: &Options) -> Source {
    Source::new(options, &mapping::Options::default()).unwrap()
}

async fn pull(source: &mut Source) -> Result<Roster, Error> {
    timeout(DEADLINE, source.pull()).await.unwrap()
}

async fn full(source: &mut Source) -> Roster {
    pull(source).await.unwrap()
}

async fn failure(source: &mut Source) -> Error {
    pull(source).await.unwrap_err()
}

/// The error with all its causes.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn ids(roster: &Roster) -> Vec<&str> {
    roster.tenants.keys().map(grey_core::ids::TenantId::as_str).collect()
}
