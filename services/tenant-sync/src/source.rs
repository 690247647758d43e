//! Reads the tenant API: every page of it, or nothing.
//!
//! A reading either yields the complete list or fails as a whole; whatever may hide an entry (a body that was cut off, a
//! list that is missing, pages that lead in a circle, a number of tenants that does not come out) is a failure.

mod check;
mod client;
mod error;
mod options;
mod page;
mod paging;
mod roster;
mod token;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use grey_runtime::Faults;
use reqwest::Url;
use tokio::time::Instant;
use tokio::{task, time};

use crate::mapping::{self, Mapping};
pub use crate::mapping::{Invalid, Sourced};
use client::Client;
pub use error::Error;
pub use options::{Auth, AuthKind, ClientAuth, Options, Paging, PagingKind, Retries};
use page::{Fault, Received, Shape};
use paging::Walk;
pub use roster::{MAX_INVALID, Roster};

/// The longest that a server may ask not to be asked again.
const MAX_PATIENCE: Duration = Duration::from_hours(1);

/// The tenant API, and when it wants to be asked again.
#[derive(Debug)]
pub struct Source {
    client: Client,
    options: Options,
    shape: Arc<Shape>,
    start: Url,
    /// The address of the list without its query, for people.
    told: String,
    not_before: Option<Instant>,
    /// The pages of the last complete reading.
    last: Vec<Received>,
}

impl Source {
    /// Prepares for reading; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Options`] with every fault, [`Error::Certificates`] and [`Error::Client`].
    pub fn new(options: &Options, mapping: &mapping::Options) -> Result<Self, Error> {
        grey_runtime::tls::install_provider();
        let mut faults = Faults::default();
        faults.section("source", options);
        faults.section("mapping", mapping);
        if !faults.found().is_empty() {
            return Err(Error::Options(faults.found().iter().map(ToString::to_string).collect()));
        }
        let unfit = |fault: String| Error::Options(vec![fault]);
        let list = check::list(options).map_err(unfit)?;
        let mapping = Mapping::compile(mapping, &mut faults);
        let shape = Shape::new(mapping, &options.paging, options.max_tenants);
        let mut told = list.clone();
        told.set_query(None);
        Ok(Self {
            client: Client::new(options, check::headers(options, &mut faults))?,
            options: options.clone(),
            shape: Arc::new(shape.map_err(|fault| unfit(fault.to_string()))?),
            start: paging::first(&list, &options.paging),
            told: told.into(),
            not_before: None,
            last: Vec::new(),
        })
    }

    /// Reads every page. One that is word for word what it was in the last reading is not parsed anew.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete; [`Error::kind`] tells the sort of it.
    pub async fn pull(&mut self) -> Result<Roster, Error> {
        if let Some(wait) = self.patience() {
            return Err(Error::TooEarly { wait });
        }
        let after = self.options.deadline;
        let pulled = time::timeout(after, self.walk()).await.map_err(|_| Error::Deadline { after })?;
        let asked = pulled.as_ref().err().and_then(Error::retry_after);
        self.not_before = asked.map(|wait| Instant::now() + wait.min(MAX_PATIENCE));
        let (roster, pages) = pulled?;
        self.last = pages;
        Ok(roster)
    }

    /// How long the server still wants not to be asked.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let wait = self.not_before?.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    async fn walk(&self) -> Result<(Roster, Vec<Received>), Error> {
        let mut walk = Walk::new(&self.options, &self.start);
        let mut number = 0;
        let (mut before, mut pages) = (self.last.iter().cloned(), Vec::new());
        let mut next = Some(self.start.clone());
        while let Some(url) = next {
            number += 1;
            if number > self.options.max_pages {
                return Err(Error::TooManyPages { limit: self.options.max_pages });
            }
            let what = format!("page {number} of {}", self.told);
            next = match self.fetch(&what, &url, before.next()).await {
                Ok(received) => {
                    let next = walk.take(&what, &received)?;
                    pages.push(received);
                    next
                }
                // Some servers know no page behind the last one.
                Err(Error::Status { status: 404, .. }) if walk.is_complete() => None,
                Err(error) => return Err(error),
            };
        }
        Ok((walk.finish()?, pages))
    }

    /// Asks for a page until it is there, or there is no hope.
    async fn fetch(&self, what: &str, url: &Url, before: Option<Received>) -> Result<Received, Error> {
        let retries = &self.options.retries;
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(retries.first)
            .with_max_delay(retries.max)
            .with_max_times(retries.attempts.saturating_sub(1))
            .with_jitter()
            .build();
        // A loop of our own: the future of backon's, with a closure that borrows, is not known to be `Send`.
        loop {
            let error = match self.attempt(what, url, before.clone()).await {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            // Whoever asks for more patience than a reading has is asked again by a later one.
            let asked = error.retry_after().unwrap_or_default();
            let Some(wait) = waits.next().filter(|_| asked <= retries.max) else { return Err(error) };
            let wait = wait.max(asked);
            let wait_ms = wait.as_millis();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                wait_ms,
                "a page will be asked for again"
            );
            time::sleep(wait).await;
        }
    }

    async fn attempt(&self, what: &str, url: &Url, before: Option<Received>) -> Result<Received, Error> {
        let document = self.client.get(what, url).await?;
        let (shape, received, looks) = (Arc::clone(&self.shape), document.body.len(), document.looks);
        // A large document keeps a thread busy for a good part of a second.
        let body = document.body;
        let read = task::spawn_blocking(move || shape.receive(&body, before)).await;
        let mut page =
            read.expect("reading a page neither panics nor is aborted").map_err(|fault| match fault {
                Fault::Unfinished => Error::Truncated { what: what.to_owned(), received, source: None },
                Fault::NoJson(why) => {
                    Error::Document { what: what.to_owned(), fault: format!("{why}; {looks}") }
                }
                Fault::TooMany => Error::TooManyTenants { limit: self.options.max_tenants },
                Fault::Wrong(fault) => Error::Document { what: what.to_owned(), fault },
            })?;
        if self.options.paging.kind == PagingKind::Link {
            page.next = match page.next {
                None if self.shape.tells_next() => None,
                None => paging::next_link(&document.url, &document.links),
                Some(link) => Some(paging::absolute(&document.url, &link)),
            };
        }
        Ok(page)
    }
}
