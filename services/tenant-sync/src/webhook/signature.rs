//! Who has signed a delivery.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grey_runtime::Secret;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Fewer bytes could be guessed.
const MIN_KEY: usize = 16;
/// Signatures looked at per delivery; senders give one per secret.
const MAX_SIGNATURES: usize = 16;

type Signature = Hmac<Sha256>;

/// A secret that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use secret {index} of the webhook: it {why}")]
pub struct InvalidSecret {
    /// Which of the configured ones, counted from 0.
    pub index: usize,
    /// What is wrong with it.
    pub why: String,
}

/// The keys of those who may sign.
pub(super) struct Keys(Vec<Signature>);

impl Keys {
    pub(super) fn read(secrets: &[Secret]) -> Result<Self, InvalidSecret> {
        let key = |(index, secret): (usize, &Secret)| {
            let invalid = |why: &str| InvalidSecret { index, why: why.to_owned() };
            let text = secret.expose().strip_prefix(PREFIX);
            let key = text.and_then(|text| STANDARD.decode(text).ok());
            let key = key.ok_or_else(|| invalid("must be whsec_ and base64"))?;
            if key.len() < MIN_KEY {
                return Err(invalid("must be of at least 16 bytes"));
            }
            Signature::new_from_slice(&key).map_err(|_| invalid("must be of a usable length"))
        };
        secrets.iter().enumerate().map(key).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of `signatures`, separated by spaces, is of one of the keys. The comparison takes as long whatever
    /// they are.
    pub(super) fn signed(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let given = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        let given: Vec<Vec<u8>> =
            given.take(MAX_SIGNATURES).filter_map(|text| STANDARD.decode(text).ok()).collect();
        let mut genuine = false;
        for key in &self.0 {
            let mut expected = key.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                expected.update(part);
            }
            for signature in &given {
                genuine |= expected.clone().verify_slice(signature).is_ok();
            }
        }
        genuine
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn keys(secrets: &[&str]) -> Result<Keys, InvalidSecret> {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        Keys::read(&secrets)
    }

    fn signed(keys: &Keys, signatures: &str) -> bool {
        let body = br#"{"test": 2432232314}"#;
        keys.signed("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, signatures)
    }

    #[test]
    fn the_published_example_is_genuine() {
        let keys = keys(&[SECRET]).unwrap();
        assert!(signed(&keys, SIGNATURE));
        assert!(signed(&keys, &format!("v1,AAAA v2,{SIGNATURE} {SIGNATURE}")));
    }

    #[test]
    fn anything_else_is_not() {
        let keys = keys(&[SECRET]).unwrap();
        let other = SIGNATURE.replace("g0h", "g1h");
        for signatures in ["", "v1,", "v1,AAAA", &other, SIGNATURE.strip_prefix("v1,").unwrap()] {
            assert!(!signed(&keys, signatures), "{signatures}");
        }
        assert!(!keys.signed("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265331", b"{}", SIGNATURE));
        assert!(!signed(&Keys(Vec::new()), SIGNATURE));
    }

    #[test]
    fn any_of_several_secrets_may_have_signed() {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(signed(&keys(&[other, SECRET]).unwrap(), SIGNATURE));
        assert!(!signed(&keys(&[other]).unwrap(), SIGNATURE));
    }

    #[test]
    fn malformed_secrets_are_refused_without_telling_them() {
        let cases = ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64", "whsec_c2hvcnQ="];
        for secret in cases {
            let error = keys(&[SECRET, secret]).err().unwrap();
            assert_eq!(error.index, 1);
            assert!(secret.is_empty() || !error.to_string().contains(secret), "{error}");
        }
    }
}
