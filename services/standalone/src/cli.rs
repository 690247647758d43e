//! The command line: one module per noun, each command one call of the services' gRPC API.

mod failure;
mod input;
mod output;
mod selection;
mod session;
mod write;

mod database;
mod demo;
mod events;
pub(crate) mod explain;
mod instance;
mod migrate;
mod overlay;
mod pin;
mod policy;
mod route;
mod routers;
mod service;
mod standalone;
mod sync;
mod tenant;
mod version;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use grey_runtime::Secret;
use grey_runtime::config::duration;

pub use failure::Failure;
use session::Session;

/// Grey Router: which version of which instance serves a tenant's call.
#[derive(Debug, Parser)]
#[command(name = "grey", version, subcommand_required = true)]
pub struct Cli {
    /// Whom to talk to, and how.
    #[command(flatten)]
    pub target: Target,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to talk to, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Target {
    /// The control plane's gRPC address
    #[arg(
        long,
        global = true,
        env = "GREY_CONTROL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7410"
    )]
    pub control: String,
    /// The router's gRPC address
    #[arg(
        long,
        global = true,
        env = "GREY_ROUTER_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7400"
    )]
    pub router: String,
    /// The gRPC address of the mirror of registries
    #[arg(
        long,
        global = true,
        env = "GREY_REGISTRY_SYNC",
        value_name = "URL",
        default_value = "http://127.0.0.1:7430"
    )]
    pub registry_sync: String,
    /// The gRPC address of the mirror of tenants
    #[arg(
        long,
        global = true,
        env = "GREY_TENANT_SYNC",
        value_name = "URL",
        default_value = "http://127.0.0.1:7420"
    )]
    pub tenant_sync: String,
    /// The gRPC address of the schema migrator
    #[arg(
        long,
        global = true,
        env = "GREY_MIGRATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:7440"
    )]
    pub migrator: String,
    /// Bearer token; better given in the environment than on the command line
    ///
    /// An empty one counts as none.
    #[arg(long, global = true, env = "GREY_TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<Secret>,
    /// Authorities (PEM) whose servers are trusted; needed for https URLs
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print the response as one document of proto3 JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How long a call may take, such as 500ms or 10s
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = positive)]
    pub timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the services in one process
    Standalone(standalone::Serve),
    /// Run them with demo tenants, live backends and traffic, and tell a story
    Demo(demo::Demo),
    /// Tenants: who is served
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Services and their default versions
    #[command(subcommand)]
    Service(service::Command),
    /// Versions of services, and the schemas that they work on
    #[command(subcommand)]
    Version(version::Command),
    /// Pins: tenants held to versions
    #[command(subcommand)]
    Pin(pin::Command),
    /// Databases of tenants: where they are, with sealed credentials
    #[command(subcommand)]
    Database(database::Command),
    /// Policies: balancing, failover, who may override
    #[command(subcommand)]
    Policy(policy::Command),
    /// Overlays: experiments and canaries, laid over the pins
    #[command(subcommand)]
    Overlay(overlay::Command),
    /// Instances, as the routers are told of them
    #[command(subcommand)]
    Instance(instance::Command),
    /// Mirrors: how they stand, what they hold back
    #[command(subcommand)]
    Sync(sync::Command),
    /// Schemas of tenant databases: planned, upgraded, undone
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Ask the router where a call goes
    Route(route::Route),
    /// Ask why a call goes where it goes
    Explain(explain::Explain),
    /// The log of changes
    Events(events::Events),
    /// Routers: which ones count, and how far they are
    #[command(args_conflicts_with_subcommands = true)]
    Routers {
        /// What to do; by default they are listed
        #[command(subcommand)]
        command: Option<routers::Command>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Carries out a command.
///
/// # Errors
/// What [`Failure`] lists; nothing was printed then, unless the failure says so.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let session = Session::new(cli.target);
    match cli.command {
        Command::Standalone(command) => Box::pin(command.run()).await,
        Command::Demo(command) => command.run().await,
        Command::Tenant(command) => command.run(&session).await,
        Command::Service(command) => command.run(&session).await,
        Command::Version(command) => command.run(&session).await,
        Command::Pin(command) => command.run(&session).await,
        Command::Database(command) => command.run(&session).await,
        Command::Policy(command) => command.run(&session).await,
        Command::Overlay(command) => command.run(&session).await,
        Command::Instance(command) => command.run(&session).await,
        Command::Sync(command) => command.run(&session).await,
        Command::Migrate(command) => Box::pin(command.run(&session)).await,
        Command::Route(command) => command.run(&session).await,
        Command::Explain(command) => command.run(&session).await,
        Command::Events(command) => command.run(&session).await,
        Command::Routers { command: None } => routers::list(&session, routers::List::default()).await,
        Command::Routers { command: Some(command) } => command.run(&session).await,
        Command::Completions { shell } => {
            // The generator panics where it cannot write, so it writes to memory.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "grey", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
    }
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// Longest wait for routers that the control plane takes.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long a write may wait for routers.
fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text)?;
    let sane = !wait.is_zero() && wait <= MAX_WAIT;
    if sane { Ok(wait) } else { Err("must be longer than nothing and at most 60s".to_owned()) }
}

/// A duration that is neither nothing nor longer than an hour.
fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    let sane = !duration.is_zero() && duration <= Duration::from_secs(3_600);
    if sane { Ok(duration) } else { Err("must be longer than nothing and at most 1h".to_owned()) }
}

/// A `key=value` pair.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be key=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }
}
