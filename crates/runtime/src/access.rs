//! Who is calling: bearer tokens, known only by their SHA-256.
//!
//! Decides identity, not permission: what a role may do is the service's business. Denies unless allowed.

mod failures;
mod last_caller;

use std::{fmt, net::SocketAddr};

use http::{HeaderMap, header};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::{Faults, Validate};

pub use failures::{Failures, TooManyFailures};
pub use last_caller::LastCaller;

/// Who may call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The known callers.
    pub tokens: Vec<Token>,
    /// Whether callers without a token are served. Unset: only if no token is configured and the service listens on a
    /// loopback address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_anonymous: Option<bool>,
}

/// One known caller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Appears in audit records.
    pub name: String,
    /// What the service grants it.
    pub role: String,
    /// SHA-256 of the bearer token, as 64 hexadecimal digits.
    pub sha256: TokenHash,
}

/// SHA-256 of a token. Never printed, since a short token could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token's text.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits; `None` if the text is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        if digits.len() != 64 {
            return None;
        }
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| de::Error::custom("expected a SHA-256 as 64 hexadecimal digits"))
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        for (index, token) in self.tokens.iter().enumerate() {
            let key = |field: &str| format!("tokens.{index}.{field}");
            faults.check(is_name(&token.name), &key("name"), MISNAMED);
            faults.check(!token.role.trim().is_empty(), &key("role"), "must not be empty");
            let earlier = self.tokens.iter().take(index);
            let (mut same_name, mut same_hash) = (false, false);
            for other in earlier {
                same_name |= other.name == token.name;
                same_hash |= other.sha256 == token.sha256;
            }
            faults.check(!same_name, &key("name"), "names another token as well");
            faults.check(!same_hash, &key("sha256"), "belongs to another token as well");
        }
    }
}

/// Longest name of a caller, in bytes.
const MAX_NAME: usize = 256;
/// Said of a name that is none.
const MISNAMED: &str = "must have 1 to 256 bytes, no control characters, no ` via `, and no spaces around it";
/// Stands in records between whoever asked and whom they asked through.
const VIA: &str = " via ";

/// Whether a caller may be called so: what stands in records and travels between services. Records name whom somebody
/// asked through after ` via `, so no name has that in it.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let readable = text.trim() == text && !text.chars().any(char::is_control) && !text.contains(VIA);
    readable && (1..=MAX_NAME).contains(&text.len())
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's name, or `anonymous`.
    pub name: String,
    /// The token's role, or `anonymous`.
    pub role: String,
}

impl Principal {
    /// A caller without a token.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), role: "anonymous".to_owned() }
    }

    /// Whether the caller showed no token.
    pub fn is_anonymous(&self) -> bool {
        self.role == "anonymous"
    }
}

/// Why a caller is unauthenticated. Tells the caller nothing that helps to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `authorization` header and anonymous callers are not served.
    #[error("authenticate caller without bearer token")]
    Missing,
    /// The header is not one `Bearer` token.
    #[error("authenticate caller with malformed authorization header")]
    Malformed,
    /// No such token.
    #[error("authenticate caller with unknown bearer token")]
    Unknown,
}

/// Why a service must not listen as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("serve {addr} beyond this machine without tokens: configure tokens, or state allow_anonymous = true")]
pub struct BindError {
    /// The address it was about to listen on.
    pub addr: SocketAddr,
}

/// Refuses a service that could be reached from outside but has neither tokens nor a stated `allow_anonymous = true`.
///
/// `tls` says whether the connection is encrypted; tokens that would travel in clear are worth a warning in the log.
///
/// # Errors
/// [`BindError`] as described.
pub fn check_bind(addr: SocketAddr, options: &Options, tls: bool) -> Result<(), BindError> {
    if addr.ip().is_loopback() {
        return Ok(());
    }
    if options.tokens.is_empty() && options.allow_anonymous != Some(true) {
        return Err(BindError { addr });
    }
    if !tls && !options.tokens.is_empty() {
        tracing::warn!(server.address = %addr, "bearer tokens are accepted without TLS on this address");
    }
    Ok(())
}

/// Authenticates requests.
#[derive(Debug)]
pub struct Access {
    hashes: Vec<TokenHash>,
    principals: Vec<Principal>,
    anonymous: Option<Principal>,
}

impl Options {
    /// Whether callers without a token are served by a service that listens on `bind`.
    #[must_use]
    pub fn serves_anonymous(&self, bind: SocketAddr) -> bool {
        let loopback_only = self.tokens.is_empty() && bind.ip().is_loopback();
        self.allow_anonymous.unwrap_or(loopback_only)
    }
}

impl Access {
    /// `bind` is the address that the service listens on: an unset `allow_anonymous` depends on it.
    pub fn new(options: &Options, bind: SocketAddr) -> Self {
        let anonymous = options.serves_anonymous(bind);
        let principal = |token: &Token| Principal { name: token.name.clone(), role: token.role.clone() };
        Self {
            hashes: options.tokens.iter().map(|token| token.sha256).collect(),
            principals: options.tokens.iter().map(principal).collect(),
            anonymous: anonymous.then(Principal::anonymous),
        }
    }

    /// Who sent these headers. A wrong token is refused even where none is needed.
    ///
    /// All tokens are compared, each in constant time, so that the time taken tells nothing about them.
    ///
    /// # Errors
    /// All of [`Error`] mean "unauthenticated" (gRPC) or 401 (HTTP).
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<&Principal, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return self.anonymous.as_ref().ok_or(Error::Missing);
        };
        if values.next().is_some() {
            return Err(Error::Malformed);
        }
        let token = bearer(value.as_bytes()).ok_or(Error::Malformed)?;
        let presented: [u8; 32] = Sha256::digest(token).into();
        let mut found = Choice::from(0);
        let mut index = 0_u64;
        for (candidate, hash) in (0_u64..).zip(&self.hashes) {
            let equal = hash.0.ct_eq(&presented);
            index.conditional_assign(&candidate, equal);
            found |= equal;
        }
        if !bool::from(found) {
            return Err(Error::Unknown);
        }
        let index = usize::try_from(index).map_err(|_| Error::Unknown)?;
        self.principals.get(index).ok_or(Error::Unknown)
    }
}

/// The token in `Bearer <token>`; the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}
