#![allow(clippy::unwrap_used, reason = "test code panics")]

use super::*;
use grey_runtime::{Faults, Validate};
use proptest::prelude::*;

const URL: &str = "postgres://app:s3cret@db.internal/acme";

fn key(id: &str) -> MasterKey {
    MasterKey { id: id.to_owned(), secret: Secret::new(Vault::generate_secret()) }
}

fn vault(keys: &[MasterKey], active: &str) -> Vault {
    Vault::new(&Options { keys: keys.to_vec(), active: active.to_owned() }).unwrap()
}

proptest! {
    #[test]
    fn what_is_sealed_opens_for_its_tenant_and_use_alone(
        text in "\\PC{0,200}", tenant in "[a-z]{1,8}", other in "[a-z]{1,8}", context in "[a-z]{1,8}",
    ) {
        let vault = vault(&[key("a")], "a");
        let data_key = vault.new_key(&tenant);
        let sealed = vault.seal(&tenant, &data_key, &context, &text).unwrap();
        let opened = vault.open(&tenant, &data_key, &context, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), &text);
        if other != tenant {
            prop_assert_eq!(vault.open(&other, &data_key, &context, &sealed).unwrap_err(), Error::Refused);
        }
        if other != context {
            prop_assert_eq!(vault.open(&tenant, &data_key, &other, &sealed).unwrap_err(), Error::Refused);
        }
    }

    #[test]
    fn a_changed_seal_does_not_open(at in 0..80_usize, flip in 1..=255_u8) {
        let vault = vault(&[key("a")], "a");
        let data_key = vault.new_key("acme");
        let sealed = vault.seal("acme", &data_key, "orders", URL).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let changed = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert_eq!(vault.open("acme", &data_key, "orders", &changed).unwrap_err(), Error::Refused);
    }
}

#[test]
fn the_same_text_is_sealed_differently_each_time() {
    let vault = vault(&[key("a")], "a");
    let data_key = vault.new_key("acme");
    let seal = || vault.seal("acme", &data_key, "orders", URL).unwrap();
    let (one, other) = (seal(), seal());
    assert_ne!(one, other);
    assert!(!one.contains("s3cret") && !one.contains("postgres"));
}

#[test]
fn a_master_key_is_replaced_without_touching_what_was_sealed() {
    let (old, new) = (key("old"), key("new"));
    let before = vault(std::slice::from_ref(&old), "old");
    let data_key = before.new_key("acme");
    let sealed = before.seal("acme", &data_key, "orders", URL).unwrap();

    let both = vault(&[old, new.clone()], "new");
    assert_eq!(both.open("acme", &data_key, "orders", &sealed).unwrap().expose(), URL);
    let resealed = both.reseal("acme", &data_key).unwrap().unwrap();
    assert_eq!(both.reseal("acme", &resealed).unwrap(), None);

    let after = vault(&[new], "new");
    assert_eq!(after.open("acme", &resealed, "orders", &sealed).unwrap().expose(), URL);
    let unknown = after.open("acme", &data_key, "orders", &sealed).unwrap_err();
    assert_eq!(unknown, Error::UnknownKey("old".to_owned()));
}

#[test]
fn a_data_key_is_not_another_tenants() {
    let vault = vault(&[key("a"), key("b")], "b");
    let of_acme = vault.new_key("acme");
    assert_eq!(vault.seal("globex", &of_acme, "orders", URL).unwrap_err(), Error::Refused);
    // Nor does it open when it claims another master key.
    let claimed = SealedKey::new(of_acme.as_str().replacen("b.", "a.", 1));
    assert_eq!(vault.seal("acme", &claimed, "orders", URL).unwrap_err(), Error::Refused);
}

#[test]
fn malformed_records_are_told_apart_from_wrong_ones() {
    let vault = vault(&[key("a")], "a");
    let data_key = vault.new_key("acme");
    for sealed in ["", "!", "AAAA"] {
        assert_eq!(
            vault.open("acme", &data_key, "orders", sealed).unwrap_err(),
            Error::Malformed,
            "{sealed}"
        );
    }
    assert_eq!(vault.seal("acme", &SealedKey::new("none"), "orders", URL).unwrap_err(), Error::Malformed);
}

#[test]
fn every_fault_of_the_keys_is_told() {
    let short = MasterKey { id: "a".to_owned(), secret: Secret::new("c2hvcnQ=") };
    let named = MasterKey { id: "a b".to_owned(), ..key("x") };
    let options = Options { keys: vec![short, named, key("c"), key("c")], active: "d".to_owned() };
    let mut faults = Faults::default();
    options.validate(&mut faults);
    let text = format!("{faults:?}");
    for key in ["keys.0.secret", "keys.1.id", "keys.3.id", "active"] {
        assert!(text.contains(key), "{key}: {text}");
    }
    assert!(!text.contains("c2hvcnQ"), "{text}");
    let twice = Options { keys: vec![key("c"), key("c")], active: "c".to_owned() };
    assert_eq!(Vault::new(&twice).unwrap_err(), Error::Twice("c".to_owned()));
    let mut none = Faults::default();
    Options::default().validate(&mut none);
    assert!(format!("{none:?}") == format!("{:?}", Faults::default()), "no key at all is a choice: {none:?}");
}

#[test]
fn nothing_secret_is_printed() {
    let key = key("a");
    let secret = key.secret.expose().to_owned();
    let options = Options { keys: vec![key], active: "a".to_owned() };
    let vault = Vault::new(&options).unwrap();
    assert!(!format!("{options:?} {vault:?}").contains(&secret));
}

#[test]
fn both_alphabets_of_base64_are_taken() {
    let padded = "+/".repeat(21) + "A=";
    let secret = |text: &str| MasterKey { id: "a".to_owned(), secret: Secret::new(text) };
    for text in [padded.clone(), padded.replace('+', "-").replace('/', "_"), padded.replace('=', "")] {
        let vault = Vault::new(&Options { keys: vec![secret(&text)], active: "a".to_owned() });
        assert!(vault.is_ok(), "{text}");
    }
}
