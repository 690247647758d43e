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

use std::collections::HashMap;
use std::sync::Arc;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use grey_runtime::Faults;
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::{task, time};

use crate::mapping::{self, Mapping};
pub use crate::mapping::{Invalid, Sourced};
use client::{Answer, Client};
pub use error::Error;
pub use options::{Auth, AuthKind, ClientAuth, Options, Paging, PagingKind, Retries};
use page::{Fault, Page, Shape};
use paging::Walk;
pub use roster::{MAX_INVALID, Roster};

/// What a reading brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// The API says that nothing has changed since the last reading that succeeded.
    Unchanged,
    /// Everything that it lists.
    Full(Roster),
}

/// The tenant API, and what is remembered of the last reading that succeeded.
#[derive(Debug)]
pub struct Source {
    client: Client,
    options: Options,
    shape: Arc<Shape>,
    start: Url,
    /// The address of the list without its query, for people.
    told: String,
    known: HashMap<Url, Known>,
}

/// A page whose version is known.
#[derive(Debug, Clone)]
struct Known {
    etag: HeaderValue,
    page: Arc<Page>,
    /// The page that followed it.
    then: Option<Url>,
}

/// A page as it is now.
enum Fetched {
    Same(Known),
    New(Page, Option<HeaderValue>),
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
            known: HashMap::new(),
        })
    }

    /// Reads every page; with `fresh`, without asking whether it has changed.
    ///
    /// What was read before stays remembered if this reading fails or is dropped.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete; [`Error::kind`] tells the sort of it.
    pub async fn pull(&mut self, fresh: bool) -> Result<Pull, Error> {
        let after = self.options.deadline;
        let walk = self.walk(fresh);
        let (pull, known) = time::timeout(after, walk).await.map_err(|_| Error::Deadline { after })??;
        if let Some(known) = known {
            self.known = known;
        }
        Ok(pull)
    }

    /// The reading, and what to remember of it if it brought anything.
    async fn walk(&self, fresh: bool) -> Result<(Pull, Option<HashMap<Url, Known>>), Error> {
        let mut walk = Walk::new(&self.options, &self.start);
        // Pages at the beginning that are as they were lead where they led; they are looked into only once another
        // one is not.
        let mut same: Option<Vec<(String, Url, Known)>> = Some(Vec::new());
        let mut known = HashMap::new();
        let mut number = 0;
        let mut next = Some(self.start.clone());
        while let Some(url) = next {
            number += 1;
            if number > self.options.max_pages {
                return Err(Error::TooManyPages { limit: self.options.max_pages });
            }
            let what = format!("page {number} of {}", self.told);
            let (page, etag) = match (self.fetch(&what, &url, fresh).await?, &mut same) {
                (Fetched::Same(page), Some(same)) => {
                    next = page.then.clone();
                    same.push((what, url, page));
                    continue;
                }
                (Fetched::Same(page), None) => (page.page, Some(page.etag)),
                (Fetched::New(page, etag), _) => (Arc::new(page), etag),
            };
            for (what, url, page) in same.take().into_iter().flatten() {
                walk.take(&what, Arc::clone(&page.page))?;
                known.insert(url, page);
            }
            let kept = etag.map(|etag| (etag, Arc::clone(&page)));
            next = walk.take(&what, page)?;
            known.extend(kept.map(|(etag, page)| (url, Known { etag, page, then: next.clone() })));
        }
        match same {
            Some(_) => Ok((Pull::Unchanged, None)),
            None => Ok((Pull::Full(walk.finish()?), Some(known))),
        }
    }

    /// Asks for a page until it is there, or there is no hope.
    async fn fetch(&self, what: &str, url: &Url, fresh: bool) -> Result<Fetched, Error> {
        let retries = &self.options.retries;
        let known = if fresh { None } else { self.known.get(url) };
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(retries.first)
            .with_max_delay(retries.max)
            .with_max_times(retries.attempts.saturating_sub(1))
            .with_jitter()
            .build();
        // A loop of our own: the future of backon's, with a closure that borrows, is not known to be `Send`.
        loop {
            let error = match self.attempt(what, url, known).await {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            let wait = error.patience(wait, retries.max);
            let wait_ms = wait.as_millis();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                wait_ms,
                "a page will be asked for again"
            );
            time::sleep(wait).await;
        }
    }

    async fn attempt(&self, what: &str, url: &Url, known: Option<&Known>) -> Result<Fetched, Error> {
        let document = match self.client.get(what, url, known.map(|known| &known.etag)).await? {
            Answer::Document(document) => document,
            Answer::NotModified => {
                let known = known.ok_or_else(|| Error::NotModified { what: what.to_owned() })?;
                return Ok(Fetched::Same(known.clone()));
            }
        };
        let (shape, received) = (Arc::clone(&self.shape), document.body.len());
        // A large document keeps a thread busy for a good part of a second.
        let body = document.body;
        let read = task::spawn_blocking(move || shape.read(&body)).await;
        let mut page =
            read.expect("reading a page neither panics nor is aborted").map_err(|fault| match fault {
                Fault::Unfinished => Error::Truncated { what: what.to_owned(), received, source: None },
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
        Ok(Fetched::New(page, document.etag))
    }
}
