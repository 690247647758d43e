//! Whom a connection served last.

use std::{fmt, sync::Arc};

use http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::{Access, Error, Principal};

/// Milliseconds for which a token that was checked is not checked again: one that is revoked ends within it.
const TRUSTED_MS: u32 = 1_000;

/// Whom a connection served last: most connections belong to one caller, whose token need not be hashed for each call.
///
/// Remembers one caller, so what a client presents cannot make it grow.
#[derive(Default)]
pub struct LastCaller(Option<Known>);

/// Never printed: it holds a token.
impl fmt::Debug for LastCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastCaller(***)")
    }
}

struct Known {
    /// The header's value, none for a caller without a token. A copy: what arrived shares its memory with other headers.
    authorization: Option<Box<[u8]>>,
    /// The connection's own, so that threads do not share its count.
    who: Arc<Principal>,
    checked_ms: u32,
}

impl LastCaller {
    /// Who sent these headers, as [`Access::authenticate`] said it at most a second ago.
    ///
    /// `now_ms` tells the milliseconds of any clock that goes on, and may wrap; it is read only for callers with a token.
    ///
    /// # Errors
    /// As of [`Access::authenticate`].
    pub fn authenticate(
        &mut self,
        access: &Access,
        headers: &HeaderMap,
        now_ms: impl Fn() -> u32,
    ) -> Result<Arc<Principal>, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let presented = values.next().map(|value| value.as_bytes());
        let now = presented.map_or(0, |_| now_ms());
        // Several tokens are no token, whichever comes first.
        if values.next().is_none()
            && let Some(known) = &self.0
            && known.is(presented, now)
        {
            return Ok(Arc::clone(&known.who));
        }
        self.0 = None;
        let who = Arc::new(access.authenticate(headers)?.clone());
        let authorization = presented.map(Box::from);
        self.0 = Some(Known { authorization, who: Arc::clone(&who), checked_ms: now });
        Ok(who)
    }
}

impl Known {
    fn is(&self, presented: Option<&[u8]>, now: u32) -> bool {
        match (self.authorization.as_deref(), presented) {
            (None, None) => true,
            (Some(known), Some(presented)) => {
                now.wrapping_sub(self.checked_ms) < TRUSTED_MS && same(known, presented)
            }
            _ => false,
        }
    }
}

/// Compared in constant time: others may send through the same connection, and must not find the token out byte by byte.
fn same(known: &[u8], presented: &[u8]) -> bool {
    known.ct_eq(presented).into()
}
