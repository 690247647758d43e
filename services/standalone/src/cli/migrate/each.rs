//! The same question about each of several tenants.

use std::future::Future;

use futures::StreamExt as _;
use grey_core::error::Reason;

use super::super::Failure;
use super::select::Selected;

/// Databases that are asked at once.
const AT_ONCE: usize = 4;

/// What was answered, and what went wrong.
pub(super) struct Told<T> {
    /// In the order of the tenants.
    pub(super) answers: Vec<T>,
    /// In the order of the tenants.
    failures: Vec<Failure>,
}

/// Asks about each tenant. One without a database is left out, unless it was named.
///
/// # Errors
/// None of them has a database.
pub(super) async fn each<T, F>(selected: &Selected, ask: impl Fn(String) -> F) -> Result<Told<T>, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let asked: Vec<_> = selected.tenants.iter().cloned().map(ask).collect();
    let all: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    let mut told = Told { answers: Vec::new(), failures: Vec::new() };
    for one in all {
        match one {
            Ok(answer) => told.answers.push(answer),
            Err(failure) if !selected.named && failure.reason() == Reason::UnknownDatabase => {}
            Err(failure) => told.failures.push(failure),
        }
    }
    if told.answers.is_empty() && told.failures.is_empty() {
        return Err(Failure::Input("none of the tenants has a database for the service".to_owned()));
    }
    Ok(told)
}

impl<T> Told<T> {
    /// Ends a command whose answers were printed.
    ///
    /// # Errors
    /// With everything that went wrong.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        match self.failures.pop() {
            None => Ok(()),
            Some(failure) if self.failures.is_empty() => Err(failure),
            Some(failure) => Err(Failure::Several(self.failures.into_iter().chain([failure]).collect())),
        }
    }
}
