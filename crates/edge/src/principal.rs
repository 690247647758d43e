//! On whose behalf a call is made, as one service tells another: two headers, which anybody may send, because nobody
//! gains by them. What is done is judged by the lower one of the token's role and the stated one.

use std::borrow::Cow;

use axum::http::HeaderMap;
use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_core::text::is_plain;
use grey_proto::status::ApiError;
use grey_runtime::access::is_name;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::access::Role;

/// Who asks, percent-encoded.
pub const PRINCIPAL_HEADER: &str = "x-grey-principal";
/// The role that they have where they asked.
pub const PRINCIPAL_ROLE_HEADER: &str = "x-grey-principal-role";
/// Through whom they ask so far, percent-encoded; absent: through nobody. Each service adds the token that it sees, so
/// whoever states somebody else stays on record however many services come after.
pub const PRINCIPAL_VIA_HEADER: &str = "x-grey-principal-via";

/// Most bytes of all through whom somebody asks.
const MAX_VIA: usize = 1_024;

/// What is encoded of a name: all that could be misread in a header.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Whoever a call is made for, as its headers state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) id: String,
    pub(crate) role: Role,
    /// Through whom so far; empty: nobody.
    pub(crate) via: String,
}

impl Stated {
    /// Reads the headers; none if the call is made for nobody else.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: one of the two is missing, there twice, or cannot be used.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let (id, role) = (value(headers, PRINCIPAL_HEADER)?, value(headers, PRINCIPAL_ROLE_HEADER)?);
        let via = value(headers, PRINCIPAL_VIA_HEADER)?;
        match (id, role) {
            (None, None) if via.is_none() => Ok(None),
            (None, None) => {
                Err(refused(PRINCIPAL_HEADER, "is missing: somebody is asked for through others"))
            }
            (Some(id), Some(role)) => {
                let via = via.map(chain).transpose()?.unwrap_or_default();
                Ok(Some(Self { id: name(id)?, role: named_role(role)?, via }))
            }
            (Some(_), None) => {
                Err(refused(PRINCIPAL_ROLE_HEADER, "is missing: send both headers or neither"))
            }
            (None, Some(_)) => Err(refused(PRINCIPAL_HEADER, "is missing: send both headers or neither")),
        }
    }
}

fn value<'h>(headers: &'h HeaderMap, header: &str) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or_else(|| refused(header, "must be there once, in ASCII"))
}

fn name(text: &str) -> Result<String, ApiError> {
    decoded(text).filter(|name| is_name(name) && is_plain(name)).map(Cow::into_owned).ok_or_else(|| {
        let why = "must be a name of 1 to 256 bytes of percent-encoded UTF-8, without control or invisible characters, \
                   characters that change the direction of writing, and spaces around it";
        refused(PRINCIPAL_HEADER, why)
    })
}

fn chain(text: &str) -> Result<String, ApiError> {
    let usable = |chain: &str| chain.len() <= MAX_VIA && !chain.trim().is_empty() && is_plain(chain);
    decoded(text).filter(|chain| usable(chain)).map(Cow::into_owned).ok_or_else(|| {
        refused(
            PRINCIPAL_VIA_HEADER,
            "must be at most 1024 bytes of percent-encoded UTF-8, without control or invisible characters and characters that \
             change the direction of writing",
        )
    })
}

/// What a text stands for. Each `%` of it begins a byte: elsewhere it would stand for itself, and the next reader might
/// read it otherwise.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let begins_byte = |rest: &str| {
        rest.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let is_whole = text.split('%').skip(1).all(begins_byte);
    is_whole.then(|| percent_decode_str(text).decode_utf8().ok()).flatten()
}

fn named_role(word: &str) -> Result<Role, ApiError> {
    Role::from_word(word)
        .ok_or_else(|| refused(PRINCIPAL_ROLE_HEADER, "is no role: send viewer, operator or admin"))
}

fn refused(header: &str, why: &str) -> ApiError {
    ApiError::new(Reason::InvalidArgument, format!("{header} {why}")).with("field", header)
}

/// A request that is made on behalf of `principal`: whoever is asked judges their role as well as this service's own.
#[must_use]
pub fn on_behalf_of<T>(principal: &Principal, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PRINCIPAL_HEADER, encoded(&principal.id));
    request.metadata_mut().insert(PRINCIPAL_ROLE_HEADER, encoded(&principal.role));
    if !principal.via.is_empty() {
        request.metadata_mut().insert(PRINCIPAL_VIA_HEADER, encoded(&principal.via));
    }
    request
}

fn encoded(text: &str) -> MetadataValue<Ascii> {
    let text = utf8_percent_encode(text, ENCODED).to_string();
    MetadataValue::try_from(text).expect("percent-encoded text is visible ASCII")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use crate::access::{Caller, Gate, admit};
    use axum::http::{Extensions, HeaderValue};
    use grey_runtime::access::{Access, Options, Token, TokenHash};

    /// What a service makes of a call with the token of a role and these headers.
    fn called(token: Role, mut headers: HeaderMap, needed: Role) -> Result<Caller, ApiError> {
        let word = token.as_str();
        let (name, sha256) = (format!("the-{word}"), TokenHash::of(word));
        let tokens = vec![Token { name, role: word.to_owned(), sha256 }];
        let options = Options { tokens, ..Options::default() };
        let gate = Gate::new(Access::new(&options, "127.0.0.1:0".parse().unwrap()), &options);
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {word}")).unwrap());
        let mut extensions = Extensions::new();
        gate.identify(&headers, &mut extensions);
        admit(&extensions, needed, "do it")
    }

    fn asking(id: &str, role: &str) -> HeaderMap {
        let principal = Principal { id: id.to_owned(), role: role.to_owned(), via: String::new() };
        on_behalf_of(&principal, ()).metadata().clone().into_headers()
    }

    #[test]
    fn any_name_travels() {
        for id in ["ann", "Ann Ü. <ann@example.org>", "日本", "a%41b", "x\u{a0}y"] {
            let caller = called(Role::Admin, asking(id, "operator"), Role::Operator).unwrap();
            let (role, via) = ("operator".to_owned(), "the-admin".to_owned());
            assert_eq!(caller.principal(), Principal { id: id.to_owned(), role, via });
            assert_eq!(caller.to_string(), format!("{id} via the-admin"));
        }
        let direct = called(Role::Admin, HeaderMap::new(), Role::Admin).unwrap();
        let (id, role) = ("the-admin".to_owned(), "admin".to_owned());
        assert_eq!(direct.principal(), Principal { id, role, via: String::new() });
        assert_eq!(direct.to_string(), "the-admin");
    }

    #[test]
    fn whoever_states_somebody_else_stays_on_record() {
        let forged = called(Role::Operator, asking("root", "operator"), Role::Operator).unwrap().principal();
        assert_eq!(forged.to_string(), "root via the-operator");
        let headers = on_behalf_of(&forged, ()).metadata().clone().into_headers();
        let further = called(Role::Admin, headers, Role::Operator).unwrap();
        assert_eq!(further.to_string(), "root via the-operator via the-admin");
        let mut alone = HeaderMap::new();
        alone.insert(PRINCIPAL_VIA_HEADER, HeaderValue::from_static("ann"));
        assert!(called(Role::Admin, alone, Role::Viewer).is_err());
        let mut long = asking("ann", "viewer");
        long.insert(PRINCIPAL_VIA_HEADER, HeaderValue::try_from("x".repeat(1_025)).unwrap());
        assert!(called(Role::Admin, long, Role::Viewer).is_err());
    }

    #[test]
    fn nobody_gains_a_role_by_stating_one() {
        let roles = [Role::Viewer, Role::Operator, Role::Admin];
        for token in roles {
            for stated in roles {
                for needed in roles {
                    let judged = called(token, asking("ann", stated.as_str()), needed);
                    let may = needed <= token && needed <= stated;
                    assert_eq!(judged.is_ok(), may, "{token:?} for {stated:?}: {needed:?}");
                    let Err(refusal) = judged else { continue };
                    assert_eq!(refusal.reason, Reason::Denied);
                    // Whose role it was that did not suffice: the asker's own, or that of the token in between.
                    assert_eq!(refusal.get("principal").is_some(), stated < needed, "{refusal}");
                }
            }
        }
    }

    #[test]
    fn half_a_principal_and_an_unusable_one_are_refused() {
        let raw = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            map
        };
        let (id, role) = (PRINCIPAL_HEADER, PRINCIPAL_ROLE_HEADER);
        let long = "x".repeat(257);
        for (headers, field) in [
            (vec![(id, "ann")], role),
            (vec![(role, "viewer")], id),
            (vec![(id, "ann"), (role, "root")], role),
            (vec![(id, "ann"), (role, "")], role),
            (vec![(id, "ann"), (role, "viewer"), (role, "viewer")], role),
            (vec![(id, "ann"), (id, "bob"), (role, "viewer")], id),
            (vec![(id, ""), (role, "viewer")], id),
            (vec![(id, "%20"), (role, "viewer")], id),
            (vec![(id, "a%0Ab"), (role, "viewer")], id),
            (vec![(id, "%ff"), (role, "viewer")], id),
            (vec![(id, "ü"), (role, "viewer")], id),
            (vec![(id, "a%E2%80%AEb"), (role, "viewer")], id),
            (vec![(id, "a%E3%85%A4b"), (role, "viewer")], id),
            (vec![(id, "a%"), (role, "viewer")], id),
            (vec![(id, "a%4"), (role, "viewer")], id),
            (vec![(id, "a%zzb"), (role, "viewer")], id),
            (vec![(id, "a%%41"), (role, "viewer")], id),
            (vec![(id, "ann"), (role, "viewer"), (PRINCIPAL_VIA_HEADER, "a%2")], PRINCIPAL_VIA_HEADER),
            (
                vec![(id, "ann"), (role, "viewer"), (PRINCIPAL_VIA_HEADER, "a%E2%80%AEb")],
                PRINCIPAL_VIA_HEADER,
            ),
            (vec![(id, &long), (role, "viewer")], id),
        ] {
            let refused = called(Role::Admin, raw(&headers), Role::Viewer).unwrap_err();
            assert_eq!(
                (refused.reason, refused.get("field")),
                (Reason::InvalidArgument, Some(field)),
                "{headers:?}"
            );
            assert!(refused.message.starts_with(field), "{refused}");
        }
    }
}
