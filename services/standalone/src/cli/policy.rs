//! `grey policy`: balancing, failover and who may override, of a service, as JSON.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use grey_proto::control::{Policy, PutPolicyRequest};

use super::session::Session;
use super::write::{self, Write};
use super::{Failure, input, output, service};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a service's policy as proto3 JSON, ready for `policy set`
    Get {
        /// The service
        service: String,
    },
    /// Replace a service's policy
    Set(Set),
}

/// A policy to be set.
#[derive(Debug, Args)]
pub struct Set {
    /// The service
    service: String,
    /// The policy as proto3 JSON; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Get { service } => {
                let policy = service::get(session, &service).await?.policy.unwrap_or_default();
                // The same text for people: they edit it and give it back.
                let document = serde_json::to_string_pretty(&policy).map_err(|error| {
                    Failure::Server(anyhow::Error::new(error).context("write the policy as JSON"))
                })?;
                output::print(&(document + "\n"))
            }
            Self::Set(args) => set(session, args).await,
        }
    }
}

async fn set(session: &Session, args: Set) -> Result<(), Failure> {
    let Set { service, file, write } = args;
    let mut policy: Policy = input::document(&file, "a policy")?;
    if policy.service.is_empty() {
        policy.service.clone_from(&service);
    }
    if policy.service != service {
        let message =
            format!("{}: the policy is of `{}`, not of `{service}`", file.display(), policy.service);
        return Err(Failure::Input(message));
    }
    let request = PutPolicyRequest { policy: Some(policy), write: write.options(), update_mask: Vec::new() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.catalog().await?;
    let attempted = format!("set the policy of `{service}`");
    let response = session.call_waiting(&attempted, write.patience(), client.put_policy(request)).await?;
    write::show(session, &response, response.result.as_ref(), &format!("set the policy of {service}"))
}
