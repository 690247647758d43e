//! Why the tenant API could not be read.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no roster. No text holds a secret, a query or more than a few words of a document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options say something wrong; every fault of them.
    #[error("use the options of the tenant API: {}", .0.join("; "))]
    Options(Vec<String>),
    /// A file with certificates or a key cannot be read.
    #[error("read PEM file {}", path.display())]
    Certificates {
        /// As configured.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The HTTP client cannot be made, for lack of trusted authorities for instance.
    #[error("make an HTTP client for the tenant API")]
    Client(#[source] reqwest::Error),
    /// No answer: the host is not known, refuses, hangs up or is not trusted.
    #[error("read {what}")]
    Transport {
        /// The page or token, and its address.
        what: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// No complete answer in time.
    #[error("read {what}: no complete answer within {after:?}")]
    Timeout {
        /// The page or token, and its address.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The pages together took too long.
    #[error("read the tenants: not complete within {after:?}")]
    Deadline {
        /// How long it was tried.
        after: Duration,
    },
    /// An answer that is no document.
    #[error("read {what}: answered {status}{}", said(.excerpt))]
    Status {
        /// The page or token, and its address.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what was said, without secrets.
        excerpt: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// A redirection that would take credentials to another origin, or one too many.
    #[error("read {what}: redirected to another origin, or too often")]
    Redirect {
        /// The page or token, and its address.
        what: String,
    },
    /// The document ends too early.
    #[error("read {what}: cut off after {received} bytes")]
    Truncated {
        /// The page and its address.
        what: String,
        /// Bytes that arrived.
        received: usize,
        /// What the HTTP client says, if it noticed.
        source: Option<reqwest::Error>,
    },
    /// The document is larger than allowed.
    #[error("read {what}: more than {limit} bytes (source.max_page_bytes)")]
    TooLarge {
        /// The page or token, and its address.
        what: String,
        /// Bytes allowed.
        limit: usize,
    },
    /// The document is not what the options say it is.
    #[error("understand {what}: {fault}")]
    Document {
        /// The page or token, and its address.
        what: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The server has asked not to be read again so soon.
    #[error("read the tenants: the server asked not to be read for another {} s", wait.as_secs() + 1)]
    TooEarly {
        /// For how long.
        wait: Duration,
    },
    /// The pages lead in a circle.
    #[error("read the page after {what}: {fault}")]
    Loop {
        /// The page and its address.
        what: String,
        /// In which way.
        fault: &'static str,
    },
    /// The address of the next page cannot be used.
    #[error("read the page after {what}: {fault}")]
    Link {
        /// The page and its address.
        what: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The pages disagree with the number of tenants that they tell.
    #[error(
        "read the tenants: {listed} are listed, but {told} are said to exist; if that is the length of a page, leave \
         source.paging.total empty"
    )]
    Total {
        /// Different tenants listed.
        listed: u64,
        /// The number told.
        told: u64,
    },
    /// The number of tenants told changed from one page to the next.
    #[error("read the tenants: their number changed from {before} to {after} meanwhile")]
    Changed {
        /// The number that earlier pages told.
        before: u64,
        /// The number that a later page told.
        after: u64,
    },
    /// More pages than allowed.
    #[error("read the tenants: more than {limit} pages (source.max_pages)")]
    TooManyPages {
        /// Pages allowed.
        limit: u64,
    },
    /// More entries than allowed.
    #[error("read the tenants: more than {limit} entries (source.max_tenants)")]
    TooManyTenants {
        /// Entries allowed.
        limit: usize,
    },
    /// The OAuth 2 server gives out no token.
    #[error("get {what}: {fault}")]
    Token {
        /// The token and its address.
        what: String,
        /// What the server says, without secrets.
        fault: String,
    },
}

impl Error {
    /// A word for counting errors by.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Options(_) | Self::Certificates { .. } | Self::Client(_) => "options",
            Self::Transport { .. } => "unreachable",
            Self::Timeout { .. } | Self::Deadline { .. } => "timeout",
            Self::Status { status: 401 | 403, .. } | Self::Token { .. } => "credentials",
            Self::Status { .. } | Self::Redirect { .. } => "status",
            Self::TooEarly { .. } => "too_early",
            Self::Truncated { .. } => "truncated",
            Self::Document { .. } => "document",
            Self::Loop { .. } | Self::Link { .. } | Self::Total { .. } | Self::Changed { .. } => "paging",
            Self::TooLarge { .. } | Self::TooManyPages { .. } | Self::TooManyTenants { .. } => "limit",
        }
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Transport { source, .. } => !source.is_builder(),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Timeout { .. } | Self::Truncated { .. } => true,
            _ => false,
        }
    }

    /// When the server wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn said(excerpt: &str) -> String {
    if excerpt.is_empty() { String::new() } else { format!(": {excerpt}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        for (status, again) in
            [(408, true), (429, true), (500, true), (503, true), (400, false), (401, false), (404, false)]
        {
            let (what, excerpt) = ("page 1".to_owned(), String::new());
            let refusal = Error::Status { what, status, excerpt, retry_after: None };
            assert_eq!(refusal.is_transient(), again, "{status}");
        }
    }
}
