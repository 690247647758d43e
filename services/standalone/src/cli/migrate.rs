//! `grey migrate`: the schemas of tenant databases.

mod baseline;
mod each;
mod follow;
mod history;
mod plan;
mod progress;
mod provision;
mod repair;
mod run;
mod select;
mod status;
mod text;
mod validate;
mod views;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use grey_proto::schema::{Target, UpgradeOptions};

use super::session::Session;
use super::{Failure, positive};
use select::{Selected, Selector};

pub(super) use follow::pinned;
pub(super) use provision::Provision;

/// What to do with schemas.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print what an upgrade would run, and what speaks against it, without running anything
    Plan(plan::Plan),
    /// Upgrade the databases of tenants, and watch until all have ended
    Up(run::Up),
    /// Tell where the databases of tenants are
    Status(status::Status),
    /// Undo migrations, newest first, and watch until all have ended
    Undo(run::Undo),
    /// Check a service's migration files, and whether what databases have applied is what they say
    Validate(validate::Validate),
    /// Declare that databases are at a schema already, such as those that Flyway has migrated
    Baseline(baseline::Baseline),
    /// Tell what was done to a tenant's databases: files that ran, and upgrades that were asked for
    History(history::History),
    /// Tell which databases are not as their last upgrade has left them
    Drift(history::Drift),
    /// Show what is half done, and declare what became of it after mending databases by hand; or accept a changed file
    Repair(repair::Repair),
    /// Schemas of views, by which two versions of a service work on the same tables at once
    #[command(subcommand)]
    Views(views::Command),
    /// Follow one upgrade until it has ended
    Watch(follow::Watch),
    /// Stop an upgrade; what it has done is undone
    Cancel(run::Cancel),
}

/// Which tenants.
#[derive(Debug, Args)]
pub(super) struct Tenants {
    /// all, tenants as a,b,c, tier=gold, region=eu, label:key=value; several joined by + must all hold
    #[arg(long, value_name = "SELECTOR")]
    tenants: Selector,
}

/// Where an upgrade should lead; nothing: to the newest schema there is.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(super) struct Goal {
    /// Up to this schema
    #[arg(long, value_name = "SCHEMA")]
    to: Option<String>,
    /// Up to the newest schema that this version of the service works on
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

/// What an upgrade may do that it would not do by itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of the upgrade")]
pub(super) struct Allowed {
    /// Accept the refusals of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    accept: Vec<String>,
    /// Do not stop before this file, which contracts: nothing runs any more that needs what it takes away; may be given
    /// several times
    #[arg(long, value_name = "FILE")]
    contract: Vec<String>,
    /// Run migrations that are older than the newest applied one
    #[arg(long)]
    out_of_order: bool,
    /// Back each database up before the first step
    #[arg(long)]
    backup: bool,
    /// How long each upgrade may take; else as the migrator is configured
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    limit: Option<Duration>,
}

/// What is asked before many databases are changed.
#[derive(Debug, Clone, Args)]
pub(super) struct Consent {
    /// Do not ask before something is changed that many depend on
    #[arg(long, short)]
    yes: bool,
    /// Why, kept with the upgrades
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// A kind of database.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Dialect {
    /// PostgreSQL
    Postgres,
    /// MySQL and MariaDB
    Mysql,
    /// SQLite
    Sqlite,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Plan(args) => args.run(session).await,
            Self::Up(args) => args.run(session).await,
            Self::Status(args) => args.run(session).await,
            Self::Undo(args) => args.run(session).await,
            Self::Validate(args) => args.run(session).await,
            Self::Baseline(args) => args.run(session).await,
            Self::History(args) => args.run(session).await,
            Self::Drift(args) => args.run(session).await,
            Self::Repair(args) => args.run(session).await,
            Self::Views(command) => command.run(session).await,
            Self::Watch(args) => args.run(session).await,
            Self::Cancel(args) => args.run(session).await,
        }
    }
}

impl Goal {
    fn target(&self) -> Option<Target> {
        Some(Target {
            schema: self.to.clone().unwrap_or_default(),
            service_version: self.version.clone().unwrap_or_default(),
        })
    }
}

impl Allowed {
    fn options(&self) -> Option<UpgradeOptions> {
        Some(UpgradeOptions {
            out_of_order: self.out_of_order,
            accept: self.accept.clone(),
            contract: self.contract.clone(),
            backup: self.backup,
            timeout: self.limit.map(Into::into),
        })
    }
}

impl Consent {
    /// Asks the person at the terminal, if there is more than one tenant and nobody has agreed yet.
    fn ask(&self, attempted: &str, selected: &Selected) -> Result<(), Failure> {
        match selected.tenants.len() {
            0 | 1 => Ok(()),
            count => self.ask_about(attempted, &format!("{count} tenants")),
        }
    }

    /// Asks the person at the terminal, if nobody has agreed yet.
    fn ask_about(&self, attempted: &str, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::Input(format!("{attempted}: {what}; agree by --yes")));
        }
        match answer(&format!("{attempted}: {what}. Go on? [y/N] "))?.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::Input(format!("{attempted}: not agreed to"))),
        }
    }
}

/// Has the tenants named again before everything they have is taken away: by `confirmed`, or by the person at the terminal.
fn named_again(attempted: &str, selected: &Selected, confirmed: &[String]) -> Result<(), Failure> {
    let missing: Vec<_> = selected.tenants.iter().filter(|tenant| !confirmed.contains(tenant)).collect();
    let input = |why: String| Err(Failure::Input(format!("{attempted}: {why}")));
    match missing.as_slice() {
        [] => Ok(()),
        [tenant] if io::stdin().is_terminal() && io::stderr().is_terminal() => {
            let question =
                format!("{attempted}: all that was migrated goes. Type the tenant's name to go on: ");
            if answer(&question)? == **tenant { Ok(()) } else { input("not agreed to".to_owned()) }
        }
        [tenant, ..] => {
            input(format!("all that was migrated goes; name each tenant again, by --confirm {tenant}"))
        }
    }
}

/// Asks the person at the terminal.
fn answer(question: &str) -> Result<String, Failure> {
    let asked = write!(io::stderr(), "{question}");
    asked.and_then(|()| io::stderr().flush()).map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|source| Failure::Read { path: "standard input".into(), source })?;
    Ok(answer.trim().to_owned())
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }
}
