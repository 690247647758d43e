//! What stands behind a URL's `?`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use grey_core::database::Dialect;
use url::Url;

use crate::{Encryption, Fault, Strength, is_plain_path, plain_path};

/// Options that a URL may have, as they are told.
const POSTGRES: &str = "sslmode, sslrootcert, sslcert and sslkey";
const MYSQL: &str = "ssl-mode, ssl-ca, ssl-cert, ssl-key, charset and collation";
const SQLITE: &str = "mode";

/// The options of one URL.
pub(crate) struct Options {
    pub(crate) encryption: Encryption,
    pub(crate) charset: Option<String>,
    pub(crate) collation: Option<String>,
    pub(crate) create: bool,
}

/// An option by what it says, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Mode,
    Authority,
    Certificate,
    Key,
    Charset,
    Collation,
    FileMode,
}

fn kind(dialect: Dialect, name: &str) -> Option<Kind> {
    Some(match (dialect, name) {
        (Dialect::Postgres | Dialect::MySql, "sslmode" | "ssl-mode") => Kind::Mode,
        (Dialect::Postgres, "sslrootcert" | "ssl-root-cert" | "ssl-ca")
        | (Dialect::MySql, "sslca" | "ssl-ca") => Kind::Authority,
        (Dialect::Postgres | Dialect::MySql, "sslcert" | "ssl-cert") => Kind::Certificate,
        (Dialect::Postgres | Dialect::MySql, "sslkey" | "ssl-key") => Kind::Key,
        (Dialect::MySql, "charset") => Kind::Charset,
        (Dialect::MySql, "collation") => Kind::Collation,
        (Dialect::Sqlite, "mode") => Kind::FileMode,
        _ => return None,
    })
}

/// Reads the options of a URL: every one is known, has a value that is one, and is there once.
pub(crate) fn read(dialect: Dialect, url: &Url) -> Result<Options, Fault> {
    let encryption =
        Encryption { strength: Strength::Preferred, authority: None, certificate: None, key: None };
    let mut read = Options { encryption, charset: None, collation: None, create: false };
    let mut seen = BTreeSet::new();
    for (index, (name, value)) in url.query_pairs().enumerate() {
        let number = index + 1;
        // A password with a `?` that was not encoded ends up here, so neither name nor value is repeated.
        let kind = kind(dialect, &name).ok_or_else(|| unknown(dialect, number))?;
        if !seen.insert(kind) {
            return Err(Fault::new(format!("says twice what option {number} behind the `?` says")));
        }
        match kind {
            Kind::Mode => read.encryption.strength = Strength::read(&value).ok_or_else(|| modes(dialect))?,
            Kind::Authority => read.encryption.authority = Some(file(&value)?),
            Kind::Certificate => read.encryption.certificate = Some(file(&value)?),
            Kind::Key => read.encryption.key = Some(file(&value)?),
            Kind::Charset => read.charset = Some(word("charset", &value)?),
            Kind::Collation => read.collation = Some(word("collation", &value)?),
            Kind::FileMode => {
                read.create = match &*value {
                    "rw" => false,
                    "rwc" => true,
                    "memory" => return Err(Fault::new("must be of a file, not of memory")),
                    _ => return Err(Fault::new("must have a mode of rw or rwc")),
                };
            }
        }
    }
    if read.encryption.certificate.is_some() != read.encryption.key.is_some() {
        return Err(Fault::new("must name a certificate and its key, or neither"));
    }
    let files = read.encryption.files().next().is_some();
    if files && !read.encryption.is_required() {
        let why = "names certificates that count for nothing with its mode of encryption";
        return Err(Fault::new(format!("{why}: say so, as {}", demanding(dialect))));
    }
    Ok(read)
}

fn unknown(dialect: Dialect, number: usize) -> Fault {
    let known = match dialect {
        Dialect::Postgres => POSTGRES,
        Dialect::MySql => MYSQL,
        Dialect::Sqlite => SQLITE,
    };
    Fault::new(format!(
        "has an option that is not known, number {number} behind the `?`: there are {known}, written so; host, user, \
         password and database stand before the `?`"
    ))
}

fn demanding(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => "ssl-mode=VERIFY_IDENTITY",
        _ => "sslmode=verify-full",
    }
}

fn modes(dialect: Dialect) -> Fault {
    Fault::new(match dialect {
        Dialect::MySql => {
            "must have an ssl-mode of DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"
        }
        _ => "must have an sslmode of disable, prefer, require, verify-ca or verify-full",
    })
}

/// A file from the root, as tools run elsewhere.
fn file(text: &str) -> Result<PathBuf, Fault> {
    if text.trim_start().starts_with("-----BEGIN") {
        return Err(Fault::new("holds a certificate or a key itself: give the path of a file"));
    }
    if is_plain_path(text) { Ok(PathBuf::from(text)) } else { Err(plain_path("a certificate or a key")) }
}

fn word(name: &str, text: &str) -> Result<String, Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("must have a {name} of letters, digits and `_`")))
}
