//! Bearer tokens and who may listen where.

use std::net::SocketAddr;

use grey_runtime::{
    Faults,
    access::{Access, Error, LastCaller, Options, Principal, Token, TokenHash, check_bind, is_name},
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

fn loopback() -> SocketAddr {
    "127.0.0.1:7400".parse().unwrap()
}

fn everywhere() -> SocketAddr {
    "0.0.0.0:7400".parse().unwrap()
}

fn token(name: &str, role: &str, secret: &str) -> Token {
    Token { name: name.to_owned(), role: role.to_owned(), sha256: TokenHash::of(secret) }
}

fn two_tokens() -> Options {
    Options {
        tokens: vec![token("ci", "admin", "first-secret"), token("grafana", "viewer", "second-secret")],
        allow_anonymous: None,
    }
}

fn headers(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
}

#[test]
fn each_token_is_its_own_principal() {
    let access = Access::new(&two_tokens(), everywhere());
    let ci = access.authenticate(&headers("Bearer first-secret")).unwrap();
    assert_eq!((ci.name.as_str(), ci.role.as_str()), ("ci", "admin"));
    let grafana = access.authenticate(&headers("bearer second-secret")).unwrap();
    assert_eq!((grafana.name.as_str(), grafana.role.as_str()), ("grafana", "viewer"));
}

#[test]
fn wrong_missing_and_malformed_tokens_are_refused() {
    let access = Access::new(&two_tokens(), loopback());
    assert_eq!(access.authenticate(&HeaderMap::new()), Err(Error::Missing));
    for wrong in ["Bearer first-secreT", "Bearer first-secret2", "Bearer x"] {
        assert_eq!(access.authenticate(&headers(wrong)), Err(Error::Unknown), "{wrong}");
    }
    for malformed in ["first-secret", "Basic first-secret", "Bearer", "Bearer ", ""] {
        assert_eq!(access.authenticate(&headers(malformed)), Err(Error::Malformed), "{malformed}");
    }
    let mut twice = headers("Bearer first-secret");
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer second-secret"));
    assert_eq!(access.authenticate(&twice), Err(Error::Malformed));
}

#[test]
fn a_connection_trusts_a_checked_token_for_a_second() {
    let access = Access::new(&two_tokens(), everywhere());
    let revoked = Access::new(&Options::default(), everywhere());
    let mut last = LastCaller::default();
    let mut at = |access, value, ms: u32| {
        last.authenticate(access, &headers(value), || u32::MAX.wrapping_add(ms)).map(|who| who.role.clone())
    };
    assert_eq!(at(&access, "Bearer first-secret", 0).as_deref(), Ok("admin"));
    assert_eq!(at(&revoked, "Bearer first-secret", 999).as_deref(), Ok("admin"), "within the second");
    assert_eq!(at(&revoked, "Bearer first-secret", 1_000), Err(Error::Unknown), "and no longer");
    assert_eq!(at(&revoked, "Bearer first-secret", 1_000), Err(Error::Unknown));
    assert_eq!(at(&access, "Bearer first-secret", 1_000).as_deref(), Ok("admin"));
    assert_eq!(at(&access, "Bearer second-secret", 1_000).as_deref(), Ok("viewer"), "another token");
    assert_eq!(at(&access, "Bearer first-secreT", 1_000), Err(Error::Unknown));
    assert_eq!(at(&access, "Bearer first-secret2", 1_000), Err(Error::Unknown));
    assert_eq!(at(&access, "Bearer first-secret", 1_000).as_deref(), Ok("admin"));
    assert_eq!(format!("{last:?}"), "LastCaller(***)");
}

#[test]
fn a_connection_that_showed_a_token_is_not_trusted_without_it() {
    let access = Access::new(&two_tokens(), everywhere());
    let mut last = LastCaller::default();
    let mut ask = |headers: &HeaderMap| last.authenticate(&access, headers, || 7).map(|who| who.role.clone());
    let mut twice = headers("Bearer first-secret");
    assert_eq!(ask(&twice).as_deref(), Ok("admin"));
    assert_eq!(ask(&HeaderMap::new()), Err(Error::Missing));
    assert_eq!(ask(&twice).as_deref(), Ok("admin"));
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer second-secret"));
    assert_eq!(ask(&twice), Err(Error::Malformed));

    let open = Access::new(&Options { allow_anonymous: Some(true), ..two_tokens() }, everywhere());
    let mut ask = |headers: &HeaderMap| last.authenticate(&open, headers, || 7).map(|who| who.role.clone());
    assert_eq!(ask(&HeaderMap::new()).as_deref(), Ok("anonymous"));
    assert_eq!(ask(&headers("Bearer first-secret")).as_deref(), Ok("admin"));
    assert_eq!(ask(&HeaderMap::new()).as_deref(), Ok("anonymous"));
    assert_eq!(
        ask(&headers("Bearer x")),
        Err(Error::Unknown),
        "a wrong token is refused even where none is needed"
    );
}

#[test]
fn anonymous_callers_are_served_on_loopback_alone_unless_stated() {
    let unset = Options::default();
    let on_loopback = Access::new(&unset, loopback());
    assert_eq!(on_loopback.authenticate(&HeaderMap::new()), Ok(&Principal::anonymous()));
    let outside = Access::new(&unset, everywhere());
    assert_eq!(outside.authenticate(&HeaderMap::new()), Err(Error::Missing));

    let stated = Options { allow_anonymous: Some(true), ..two_tokens() };
    let stated = Access::new(&stated, everywhere());
    assert!(stated.authenticate(&HeaderMap::new()).unwrap().is_anonymous());
    assert_eq!(stated.authenticate(&headers("Bearer first-secret")).unwrap().name, "ci");

    let denied = Options { allow_anonymous: Some(false), ..Options::default() };
    assert_eq!(Access::new(&denied, loopback()).authenticate(&HeaderMap::new()), Err(Error::Missing));
}

#[test]
fn wrong_token_is_refused_even_where_none_is_needed() {
    let open = Access::new(&Options::default(), loopback());
    assert_eq!(open.authenticate(&headers("Bearer anything")), Err(Error::Unknown));
}

#[test]
fn open_service_beyond_loopback_must_be_stated() {
    let unset = Options::default();
    assert_eq!(check_bind(loopback(), &unset, false), Ok(()));
    assert_eq!(check_bind("[::1]:7400".parse().unwrap(), &unset, false), Ok(()));
    let refused = check_bind(everywhere(), &unset, true).unwrap_err();
    insta::assert_snapshot!(refused, @"serve 0.0.0.0:7400 beyond this machine without tokens: configure tokens, or state allow_anonymous = true");
    let denied = Options { allow_anonymous: Some(false), ..Options::default() };
    assert!(check_bind(everywhere(), &denied, true).is_err());
    let stated = Options { allow_anonymous: Some(true), ..Options::default() };
    assert_eq!(check_bind(everywhere(), &stated, false), Ok(()));
    assert_eq!(check_bind(everywhere(), &two_tokens(), true), Ok(()));
}

#[test]
fn tokens_that_cannot_be_told_apart_are_faults() {
    let options = Options {
        tokens: vec![token("ci", "admin", "same"), token("ci", "", "same")],
        allow_anonymous: None,
    };
    let mut faults = Faults::default();
    faults.section("access", &options);
    let found: Vec<String> = faults.found().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    access.tokens.1.role: must not be empty
    access.tokens.1.name: names another token as well
    access.tokens.1.sha256: belongs to another token as well
    ");
}

#[test]
fn hashes_are_read_from_hexadecimal_and_never_printed() {
    // SHA-256 of "abc", from FIPS 180-2.
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(TokenHash::from_hex(hex), Some(TokenHash::of("abc")));
    assert_eq!(TokenHash::from_hex(&hex.to_uppercase()), Some(TokenHash::of("abc")));
    for wrong in ["", "ba78", &format!("{hex}00"), &hex.replace('b', "g"), &hex.replace('b', "é")] {
        assert_eq!(TokenHash::from_hex(wrong), None, "{wrong}");
    }
    let printed = format!("{:?}", two_tokens());
    assert!(printed.contains("***"), "{printed}");
    assert_eq!(serde_json::to_value(two_tokens()).unwrap()["tokens"][0]["sha256"], "***");
}

#[test]
fn tokens_have_names_that_can_travel() {
    let long = "x".repeat(257);
    for name in ["", " ", " ann", "ann\n", "ann via root", long.as_str()] {
        let options = Options { tokens: vec![token(name, "admin", "t")], allow_anonymous: None };
        let mut faults = Faults::default();
        faults.section("access", &options);
        let found: Vec<String> = faults.found().iter().map(ToString::to_string).collect();
        assert!(found.len() == 1 && found[0].starts_with("access.tokens.0.name: must have"), "{found:?}");
    }
    assert!(is_name("Ann Ö. <ann@example.org>"));
}
