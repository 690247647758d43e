//! The master keys, as an operator sets them.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::KeyInit;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use grey_runtime::{Faults, Secret, Validate};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Error;

/// The master keys. Keep an old one until every data key is sealed under the active one.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Every key that may be needed.
    pub keys: Vec<MasterKey>,
    /// The id of the key under which new data keys are sealed; empty: nothing can be sealed.
    pub active: String,
}

/// One master key.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MasterKey {
    /// Stands in front of what it sealed; never reuse one.
    pub id: String,
    /// 32 random bytes in base64, such as `openssl rand -base64 32` prints.
    pub secret: Secret,
}

impl Options {
    /// Whether no key is configured at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.active.is_empty()
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        for (index, key) in self.keys.iter().enumerate() {
            let at = |field: &str| format!("keys.{index}.{field}");
            faults.check(is_id(&key.id), &at("id"), "must have 1 to 32 letters, digits, `_` or `-`");
            let twice = self.keys.iter().take(index).any(|other| other.id == key.id);
            faults.check(!twice, &at("id"), "is another key's as well");
            faults.check(cipher(key).is_ok(), &at("secret"), "must be 32 bytes in base64");
        }
        let known = self.is_empty() || self.keys.iter().any(|key| key.id == self.active);
        faults.check(known, "active", "must be the id of one of the keys");
    }
}

/// Whether the text can be a key's id.
pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

/// The key's cipher; either alphabet of base64 is taken, with or without padding.
pub(crate) fn cipher(key: &MasterKey) -> Result<Aes256Gcm, Error> {
    let malformed = || Error::MalformedKey(key.id.clone());
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = key.secret.expose().trim();
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text);
    let bytes = decode(&alphabet::STANDARD).or_else(|_| decode(&alphabet::URL_SAFE));
    let bytes = Zeroizing::new(bytes.map_err(|_| malformed())?);
    Aes256Gcm::new_from_slice(&bytes).map_err(|_| malformed())
}
