//! The few arguments that every service understands; all else belongs in the configuration.

use std::{
    env, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Error, Source, Validate, load, to_toml};

/// What the command line asks for.
#[derive(Debug)]
#[must_use = "the text of --help and --print-config is for the caller to print"]
pub enum Invocation<T> {
    /// Run with this configuration.
    Run(T),
    /// Print this text on stdout and end successfully.
    Print(String),
}

impl<T> Invocation<T> {
    /// The configuration to run with; or nothing, after writing the text that was asked for to stdout.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub fn or_print(self) -> io::Result<Option<T>> {
        match self {
            Self::Run(config) => Ok(Some(config)),
            Self::Print(text) => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
                Ok(None)
            }
        }
    }
}

/// Reads the process's arguments and environment: the one place where either is read.
///
/// # Errors
/// As [`load`], and [`Error::Argument`].
pub fn from_args<T>(name: &str, defaults: &str) -> Result<Invocation<T>, Error>
where
    T: DeserializeOwned + Serialize + Validate,
{
    let args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    parse_args(name, defaults, args, env::vars_os().map(text))
}

/// [`from_args`] with the arguments (without the program's name) and the environment as parameters.
///
/// # Errors
/// As [`load`], and [`Error::Argument`].
pub fn parse_args<T>(
    name: &str,
    defaults: &str,
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation<T>, Error>
where
    T: DeserializeOwned + Serialize + Validate,
{
    let mut file: Option<PathBuf> = None;
    let mut print_config = false;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--config" => file = Some(args.next().ok_or(Error::Argument(arg))?.into()),
            "--print-config" => print_config = true,
            "--print-defaults" => return Ok(Invocation::Print(defaults.to_owned())),
            "--help" | "-h" => return Ok(Invocation::Print(help(name))),
            "--version" | "-V" => {
                return Ok(Invocation::Print(format!("{name} {}\n", env!("CARGO_PKG_VERSION"))));
            }
            _ => match arg.strip_prefix("--config=") {
                Some(path) => file = Some(Path::new(path).to_owned()),
                None => return Err(Error::Argument(arg)),
            },
        }
    }
    let config: T = load(Source { defaults, file: file.as_deref(), env })?;
    if print_config { to_toml(&config).map(Invocation::Print) } else { Ok(Invocation::Run(config)) }
}

fn help(name: &str) -> String {
    format!(
        "{name} {version}

Usage: {name} [OPTIONS]

Options:
  --config FILE     read FILE over the compiled-in defaults
  --print-config    print the effective configuration, secrets masked, and exit
  --print-defaults  print the commented defaults, the reference of all settings, and exit
  -h, --help        print this help
  -V, --version     print the version

Environment variables override both, one per setting: GREY__SECTION__KEY=value
",
        version = env!("CARGO_PKG_VERSION")
    )
}
