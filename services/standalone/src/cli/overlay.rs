//! `grey overlay`: experiments and canaries of a service, as JSON.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use grey_proto::control::{DeleteOverlayRequest, Overlay, PromoteOverlayRequest, PutOverlayRequest};

use super::session::Session;
use super::write::{self, Write};
use super::{Failure, input, output, service};

/// What to do with overlays.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print an experiment or canary as proto3 JSON, ready for `overlay put`
    Get {
        /// The service
        service: String,
        /// The overlay
        overlay: String,
    },
    /// Set an experiment or canary; its arms keep the units that they had, as far as their weights go
    Put(Put),
    /// Remove an experiment or canary
    Delete(Delete),
    /// Make what it tries out the default and remove it, moving nobody
    ///
    /// Tenants that would move are pinned to the version that they have.
    Promote(Promote),
}

/// An overlay to be set.
#[derive(Debug, Args)]
pub struct Put {
    /// The service
    service: String,
    /// The overlay as proto3 JSON; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    write: Write,
}

/// An overlay to be removed.
#[derive(Debug, Args)]
pub struct Delete {
    /// The service
    service: String,
    /// The overlay
    overlay: String,
    #[command(flatten)]
    write: Write,
}

/// An overlay whose version becomes the default.
#[derive(Debug, Args)]
pub struct Promote {
    /// The service
    service: String,
    /// The overlay
    overlay: String,
    /// The variant of an experiment that won
    #[arg(long, default_value = "", hide_default_value = true)]
    variant: String,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Get { service, overlay } => get(session, &service, &overlay).await,
            Self::Put(args) => put(session, args).await,
            Self::Delete(args) => delete(session, args).await,
            Self::Promote(args) => promote(session, args).await,
        }
    }
}

async fn get(session: &Session, service: &str, id: &str) -> Result<(), Failure> {
    let overlays = service::get(session, service).await?.overlays;
    let overlay = overlays.into_iter().find(|overlay| overlay.id == id);
    let unknown = || Failure::Input(format!("service `{service}` has no overlay `{id}`"));
    let overlay = overlay.ok_or_else(unknown)?;
    // The same text for people: they edit it and give it back.
    let document = serde_json::to_string_pretty(&overlay)
        .map_err(|error| Failure::Server(anyhow::Error::new(error).context("write the overlay as JSON")))?;
    output::print(&(document + "\n"))
}

async fn put(session: &Session, args: Put) -> Result<(), Failure> {
    let Put { service, file, write } = args;
    let mut overlay: Overlay = input::document(&file, "an overlay")?;
    if overlay.service.is_empty() {
        overlay.service.clone_from(&service);
    }
    if overlay.service != service {
        let named = &overlay.service;
        let message = format!("{}: the overlay is of `{named}`, not of `{service}`", file.display());
        return Err(Failure::Input(message));
    }
    let attempted = format!("set overlay `{}` of `{service}`", overlay.id);
    let done = format!("set overlay {} of {service}", overlay.id);
    let request =
        PutOverlayRequest { overlay: Some(overlay), write: write.options(), update_mask: Vec::new() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.catalog().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.put_overlay(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

async fn delete(session: &Session, args: Delete) -> Result<(), Failure> {
    let Delete { service, overlay: id, write } = args;
    let attempted = format!("delete overlay `{id}` of `{service}`");
    let done = format!("deleted overlay {id} of {service}");
    let request = DeleteOverlayRequest { service, id, write: write.options() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.catalog().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.delete_overlay(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

async fn promote(session: &Session, args: Promote) -> Result<(), Failure> {
    let Promote { service, overlay: id, variant, write } = args;
    let attempted = format!("promote overlay `{id}` of `{service}`");
    let done = format!("promoted overlay {id} of {service}");
    let request = PromoteOverlayRequest { service, id, variant, write: write.options() };
    let patience = write.patience() + write::BULK;
    let request = session.request_waiting(request, patience);
    let mut client = session.catalog().await?;
    let response = session.call_waiting(&attempted, patience, client.promote_overlay(request)).await?;
    let done = format!("{done}, {} tenants pinned where they are,", response.pinned);
    write::show(session, &response, response.result.as_ref(), &done)
}
