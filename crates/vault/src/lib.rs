//! Seals credentials: a data key per tenant, itself sealed by one of several master keys.
//!
//! What is stored never holds a key in clear: a text is sealed with its tenant's data key, the data key with a master key,
//! whose id stands in front. Rotating a master key means sealing the data keys anew; the texts stay as they are. Each seal is
//! bound to what it is for, so that one tenant's record does not open in another's place.
//!
//! What it does *not* do: it stores nothing, and knows neither databases nor tenants but by name.
//!
//! ```
//! use grey_runtime::Secret;
//! use grey_vault::{MasterKey, Options, Vault};
//!
//! let key = MasterKey { id: "2026-11".into(), secret: Secret::new(Vault::generate_secret()) };
//! let vault = Vault::new(&Options { keys: vec![key], active: "2026-11".into() })?;
//! let data_key = vault.new_key("acme");
//! let sealed = vault.seal("acme", &data_key, "orders", "postgres://app:s3cret@db/acme")?;
//! assert_eq!(vault.open("acme", &data_key, "orders", &sealed)?.expose(), "postgres://app:s3cret@db/acme");
//! assert!(vault.open("globex", &data_key, "orders", &sealed).is_err());
//! # Ok::<(), grey_vault::Error>(())
//! ```

mod options;

use std::collections::BTreeMap;
use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Generate, Key, KeyInit, Nonce, Payload};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grey_runtime::Secret;
use zeroize::Zeroizing;

pub use options::{MasterKey, Options};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 12;

/// Why something is not sealed or opened. Tells nothing of what was to be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A master key is not 32 bytes in base64.
    #[error("read master key `{0}`: it must be 32 bytes in base64")]
    MalformedKey(String),
    /// A master key's id is not one.
    #[error("read master key `{0}`: its id must have 1 to 32 letters, digits, `_` or `-`")]
    MalformedId(String),
    /// Two master keys have the same id.
    #[error("read master key `{0}`: it is there twice")]
    Twice(String),
    /// The master key is not configured.
    #[error("find master key `{0}`: it is not configured")]
    UnknownKey(String),
    /// What should be opened is not what was sealed, or was sealed for something else.
    #[error("open what was sealed: it does not open with this key for this use")]
    Refused,
    /// It is no text that this crate wrote.
    #[error("open what was sealed: it is malformed")]
    Malformed,
}

/// A tenant's data key, sealed: `<master key id>.<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey(String);

impl SealedKey {
    /// Takes what was stored.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What is to be stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> Result<(&str, &str), Error> {
        self.0.split_once('.').ok_or(Error::Malformed)
    }
}

/// The master keys.
pub struct Vault {
    keys: BTreeMap<String, Aes256Gcm>,
    active: String,
}

impl Vault {
    /// Takes the master keys.
    ///
    /// # Errors
    /// A key or an id is malformed, two keys share an id, or the active one is not among them.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let mut keys = BTreeMap::new();
        for key in &options.keys {
            if !options::is_id(&key.id) {
                return Err(Error::MalformedId(key.id.clone()));
            }
            if keys.insert(key.id.clone(), options::cipher(key)?).is_some() {
                return Err(Error::Twice(key.id.clone()));
            }
        }
        if !keys.contains_key(&options.active) {
            return Err(Error::UnknownKey(options.active.clone()));
        }
        Ok(Self { keys, active: options.active.clone() })
    }

    /// A new random master key, in base64.
    #[must_use]
    pub fn generate_secret() -> String {
        URL_SAFE_NO_PAD.encode(Key::<Aes256Gcm>::generate())
    }

    /// The id of the key under which new data keys are sealed.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.active
    }

    /// A new random data key for `tenant`, sealed under the active master key.
    #[must_use]
    pub fn new_key(&self, tenant: &str) -> SealedKey {
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::from(Key::<Aes256Gcm>::generate()));
        self.seal_key(tenant, key.as_slice())
    }

    /// The same data key sealed under the active master key; none if it is so already.
    ///
    /// # Errors
    /// Its master key is not configured any more, or it is not `tenant`'s.
    pub fn reseal(&self, tenant: &str, key: &SealedKey) -> Result<Option<SealedKey>, Error> {
        if key.parts()?.0 == self.active {
            return Ok(None);
        }
        let bytes = self.open_key(tenant, key)?;
        Ok(Some(self.seal_key(tenant, &bytes)))
    }

    /// Seals `text` for one use (`context`) of `tenant`.
    ///
    /// # Errors
    /// The data key does not open.
    pub fn seal(&self, tenant: &str, key: &SealedKey, context: &str, text: &str) -> Result<String, Error> {
        let cipher = data_cipher(&self.open_key(tenant, key)?)?;
        Ok(encrypt(&cipher, &bound("text", tenant, context), text.as_bytes()))
    }

    /// Opens what [`Vault::seal`] has sealed for the same tenant and use.
    ///
    /// # Errors
    /// The data key does not open, or the text was changed or sealed for something else.
    pub fn open(&self, tenant: &str, key: &SealedKey, context: &str, sealed: &str) -> Result<Secret, Error> {
        let cipher = data_cipher(&self.open_key(tenant, key)?)?;
        let bytes = decrypt(&cipher, &bound("text", tenant, context), sealed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::Malformed)?;
        Ok(Secret::new(text))
    }

    fn seal_key(&self, tenant: &str, key: &[u8]) -> SealedKey {
        let cipher = self.keys.get(&self.active).expect("the active key is among the keys");
        SealedKey(format!("{}.{}", self.active, encrypt(cipher, &bound("key", tenant, &self.active), key)))
    }

    fn open_key(&self, tenant: &str, key: &SealedKey) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (id, sealed) = key.parts()?;
        let cipher = self.keys.get(id).ok_or_else(|| Error::UnknownKey(id.to_owned()))?;
        decrypt(cipher, &bound("key", tenant, id), sealed)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Vault").field("keys", &ids).field("active", &self.active).finish()
    }
}

/// What a seal is bound to. Lengths keep the parts apart.
fn bound(what: &str, tenant: &str, context: &str) -> Vec<u8> {
    format!("grey-vault {what} {}:{tenant} {}:{context}", tenant.len(), context.len()).into_bytes()
}

fn data_cipher(key: &[u8]) -> Result<Aes256Gcm, Error> {
    Aes256Gcm::new_from_slice(key).map_err(|_| Error::Malformed)
}

/// Base64 of a random nonce and the ciphertext.
fn encrypt(cipher: &Aes256Gcm, aad: &[u8], msg: &[u8]) -> String {
    let nonce = Nonce::<Aes256Gcm>::generate();
    let sealed = cipher.encrypt(&nonce, Payload { msg, aad });
    let sealed = sealed.expect("a text is far shorter than what one nonce may seal");
    URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
}

fn decrypt(cipher: &Aes256Gcm, aad: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Error::Malformed)?;
    let (nonce, msg) = bytes.split_at_checked(NONCE_BYTES).ok_or(Error::Malformed)?;
    let nonce = Nonce::<Aes256Gcm>::try_from(nonce).map_err(|_| Error::Malformed)?;
    cipher.decrypt(&nonce, Payload { msg, aad }).map(Zeroizing::new).map_err(|_| Error::Refused)
}

#[cfg(test)]
mod tests;
