//! `grey standalone`: the services in one process.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use grey_runtime::config::to_toml;
use grey_runtime::{Shutdown, files, tls};

use super::{Failure, output};
use crate::config::{Config, DEFAULTS};
use crate::standalone::Standalone;

/// How to run.
#[derive(Debug, Args)]
pub struct Serve {
    /// Read this file over the compiled-in defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep the control database here; else in a temporary directory, gone at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the effective configuration and exit
    #[arg(long)]
    print_config: bool,
    /// Print the commented defaults, the reference of all settings, and exit
    #[arg(long, conflicts_with = "print_config")]
    print_defaults: bool,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        if self.print_defaults {
            return output::print(DEFAULTS);
        }
        let mut config = configure(self.config.as_deref())?;
        if let Some(data_dir) = self.data_dir {
            config.standalone.data_dir = data_dir;
        }
        if self.print_config {
            let text = to_toml(&config).context("print the configuration").map_err(Failure::Server)?;
            return output::print(&text);
        }
        tls::install_provider();
        let shutdown = Shutdown::new();
        shutdown.on_signals().context("listen for signals").map_err(Failure::Server)?;
        let standalone = Box::pin(Standalone::bind(&config)).await.map_err(Failure::Server)?;
        files::raise_limit();
        let data = standalone.data_dir().display();
        output::print(&format!("{}\ndata           {data}\n", standalone.addresses(&config)))?;
        Box::pin(standalone.serve(&shutdown)).await.map_err(Failure::Server)
    }
}

/// The configuration with the process's environment.
pub(super) fn configure(file: Option<&std::path::Path>) -> Result<Config, Failure> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    Config::load(file, std::env::vars_os().map(text))
        .map_err(|error| Failure::Server(anyhow::Error::new(error).context("configure")))
}
