//! Configuration in three layers: compiled-in TOML defaults, an optional TOML file, the environment.
//!
//! Keys that nothing reads are refused rather than ignored, and every fault of every layer is reported at once, so that
//! an operator repairs a configuration in one go. Environment variables are spelled `GREY__SECTION__KEY` with two
//! underscores; `GREY_ROUTER_PORT` and its like, which Kubernetes injects for a service of that name, are ignored.

mod args;
mod decode;
pub mod duration;
mod faults;
mod layers;
mod secret;

use std::{io, path::Path, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

pub use args::{Invocation, from_args, parse_args};
pub use faults::{Fault, Faults, Validate};
pub use secret::Secret;

/// Where a configuration is read from; later fields override earlier ones, key by key.
#[derive(Debug)]
pub struct Source<'a, E> {
    /// The service's `config.default.toml`, compiled in.
    pub defaults: &'a str,
    /// A file that the operator named; it must exist.
    pub file: Option<&'a Path>,
    /// The process's environment; variables that do not start with `GREY__` are ignored.
    pub env: E,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("read configuration file {}", path.display())]
    Read {
        /// The file named by the operator.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file or the compiled-in defaults are not TOML. The offending line itself is not repeated: it may hold a secret.
    #[error("parse {origin}, line {line}: {message}")]
    Syntax {
        /// The file, or the compiled-in defaults.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// The parser's complaint.
        message: String,
    },
    /// The configuration can be read but says something wrong.
    #[error("{}", faults::list(.0))]
    Invalid(Vec<Fault>),
    /// The configuration cannot be written as TOML.
    #[error("print configuration as TOML")]
    Print(#[source] toml::ser::Error),
    /// An argument that no service understands, or one that lacks its value.
    #[error("understand argument `{0}`, see --help")]
    Argument(String),
}

/// Reads, merges, types and checks a configuration.
///
/// # Errors
/// [`Error::Invalid`] holds every fault that was found: unknown keys and variables, wrong types, broken rules. The file
/// being absent or not TOML is an error of its own.
pub fn load<T: DeserializeOwned + Validate>(
    source: Source<'_, impl IntoIterator<Item = (String, String)>>,
) -> Result<T, Error> {
    let mut found = Vec::new();
    let layers = layers::Layers::read(source, &mut found)?;
    let Some(config) = decode::decode::<T>(&layers, &mut found) else {
        return Err(Error::Invalid(found));
    };
    let mut faults = Faults::default();
    config.validate(&mut faults);
    // A value that could not be read was replaced by its default: rules about it would only confuse.
    let broken_rules = faults.into_vec().into_iter().map(|fault| fault.with_origin(&layers));
    let broken_rules: Vec<Fault> =
        broken_rules.filter(|rule| found.iter().all(|fault| fault.path != rule.path)).collect();
    found.extend(broken_rules);
    if found.is_empty() { Ok(config) } else { Err(Error::Invalid(found)) }
}

/// The effective configuration as TOML; values of type [`Secret`] print as `"***"`.
///
/// # Errors
/// [`Error::Print`] if the type holds something that TOML cannot express.
pub fn to_toml(config: &impl Serialize) -> Result<String, Error> {
    let table = toml::Table::try_from(config).map_err(Error::Print)?;
    toml::to_string(&table).map_err(Error::Print)
}
