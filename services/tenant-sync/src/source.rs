//! Reads the tenant API: every page of it, or nothing.
//!
//! A reading either yields the complete list or fails as a whole; whatever may hide an entry (a body that was cut off, a
//! list that is missing, pages that lead in a circle, a number of tenants that does not come out) is a failure.

mod error;
mod options;
mod roster;

use serde_json::Value;

use crate::mapping::{self, Mapping};
pub use crate::mapping::{Invalid, Sourced};
pub use error::Error;
pub use options::{Auth, AuthKind, ClientAuth, Options, Paging, PagingKind, Retries};
pub use roster::{MAX_INVALID, Roster};

/// What a reading brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// The API says that nothing has changed since the last reading that succeeded.
    Unchanged,
    /// Everything that it lists.
    Full(Roster),
}

/// The tenant API, and what is remembered of the last reading.
#[derive(Debug)]
pub struct Source {
    http: reqwest::Client,
    url: String,
    mapping: Mapping,
}

impl Source {
    /// Prepares for reading; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Certificates`] and [`Error::Client`].
    pub fn new(options: &Options, mapping: &mapping::Options) -> Result<Self, Error> {
        grey_runtime::tls::install_provider();
        let mut faults = grey_runtime::Faults::default();
        let mapping = Mapping::compile(mapping, &mut faults);
        if !faults.found().is_empty() {
            return Err(Error::Options(faults.found().iter().map(ToString::to_string).collect()));
        }
        let http =
            reqwest::Client::builder().connect_timeout(options.connect_timeout).timeout(options.timeout);
        Ok(Self {
            http: http.build().map_err(Error::Client)?,
            url: format!("{}{}", options.url.trim_end_matches('/'), options.path),
            mapping,
        })
    }

    /// Reads every page; with `fresh`, without asking whether it has changed.
    ///
    /// What was read before stays remembered if this reading fails or is dropped.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete.
    pub async fn pull(&mut self, fresh: bool) -> Result<Pull, Error> {
        let _ = fresh;
        let what = format!("page 1 of {}", self.url);
        let failed =
            |source: reqwest::Error| Error::Transport { what: what.clone(), source: source.without_url() };
        let answer = self.http.get(&self.url).send().await.and_then(reqwest::Response::error_for_status);
        let document: Value = answer.map_err(failed)?.json().await.map_err(failed)?;
        let Some(Value::Array(entries)) = self.mapping.items().find(&document) else {
            return Err(Error::Document { what, fault: format!("`{}` is no list", self.mapping.items()) });
        };
        let mut roster = Roster { pages: 1, ..Roster::default() };
        for entry in entries {
            roster.add(self.mapping.map(entry));
        }
        Ok(Pull::Full(roster))
    }
}
