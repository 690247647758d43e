//! `grey pin`: tenants held to versions.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DeletePinRequest, ListPinsRequest, ListPinsResponse, Pin, PinRemoved,
    ProposedChange, PutPinRequest, PutPinsRequest,
};

use super::output::{plain, table};
use super::selection::Selection;
use super::session::{Session, pages};
use super::write::{self, Write};
use super::{Failure, migrate};

/// How long a strict move may take where --wait does not say, its flip included.
const STRICT_WAIT: Duration = Duration::from_secs(10);

/// What to do with pins.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List pins of a tenant or of a service
    List(List),
    /// Hold a tenant to a version, or to versions of several services at once; or many tenants to one version
    ///
    /// With several services or many tenants, --expect is the revision of the whole log.
    Set(Box<Set>),
    /// Let a tenant go back to the defaults of services, or many tenants to that of one
    Delete(Box<Delete>),
}

/// Which pins.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("of").required(true).multiple(true)))]
pub struct List {
    /// Only pins of this tenant
    #[arg(long, group = "of", default_value = "", hide_default_value = true)]
    tenant: String,
    /// Only pins of this service
    #[arg(long, group = "of", default_value = "", hide_default_value = true)]
    service: String,
    /// At most this many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

/// A tenant and the versions to hold it to.
#[derive(Debug, Args)]
pub struct Set {
    /// The tenant, unless many are selected; then SERVICE VERSION, or any number of SERVICE=VERSION, which take effect
    /// together
    #[arg(required = true, value_name = "TENANT SERVICE VERSION|SERVICE=VERSION")]
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Experiments and canaries leave the pin alone
    #[arg(long)]
    lock: bool,
    /// If the tenant lacks the version's schema, upgrade its database first and pin once that has succeeded
    ///
    /// Only with one service. With --wait the upgrade is followed.
    #[arg(long)]
    migrate: bool,
    /// Never let two versions serve the tenant at the same time
    ///
    /// Every router refuses its calls first; only once all that may still answer have acknowledged that, at most --wait
    /// later, the pin is set; else nothing is changed. Only with one service.
    #[arg(long, conflicts_with = "migrate")]
    strict: bool,
    #[command(flatten)]
    write: Write,
}

/// A tenant and the services whose pins are removed.
#[derive(Debug, Args)]
pub struct Delete {
    /// The tenant, unless many are selected; then the services; several take effect together
    #[arg(required = true, value_name = "TENANT SERVICE")]
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(args) => list(session, args).await,
            Self::Set(args) => set(session, *args).await,
            Self::Delete(args) => delete(session, *args).await,
        }
    }
}

async fn list(session: &Session, args: List) -> Result<(), Failure> {
    let List { tenant, service, limit } = args;
    let mut client = session.pins().await?;
    let page = async |page_size, page_token| {
        let (tenant, service) = (tenant.clone(), service.clone());
        let request = session.request(ListPinsRequest { tenant, service, page_size, page_token });
        let response = session.call("list pins", client.list_pins(request)).await?;
        Ok((response.pins, response.next_page_token))
    };
    let (pins, next_page_token) = pages(limit as usize, page).await?;
    let response = ListPinsResponse { pins, next_page_token };
    session.show(&response, || list_text(&response))
}

async fn set(session: &Session, args: Set) -> Result<(), Failure> {
    let Set { words, selection, lock: locked, migrate: upgrades, strict, write } = args;
    if let Some(tenants) = selection.selector()? {
        let [(service, version)] = <[_; 1]>::try_from(read_targets(&words)?)
            .map_err(|_| Failure::Input("many tenants are pinned to one version at a time".to_owned()))?;
        if upgrades {
            return Err(Failure::Input("--migrate is about one tenant; see `grey migrate up`".to_owned()));
        }
        if strict {
            return Err(Failure::Input("--strict is about one tenant".to_owned()));
        }
        let request = PutPinsRequest { service, version, locked, ..PutPinsRequest::default() };
        return put_many(session, PutPinsRequest { tenants: Some(tenants), ..request }, &write).await;
    }
    let (tenant, targets) = first(words)?;
    let targets = read_targets(&targets)?;
    let said: Vec<_> = targets.iter().map(|(service, version)| format!("{service} to {version}")).collect();
    let attempted = format!("pin `{tenant}`'s {}", said.join(" and "));
    let done = format!("pinned {tenant}'s {}", said.join(" and "));
    let pin = |(service, version)| Pin { tenant: tenant.clone(), service, version, locked, revision: 0 };
    let mut pins: Vec<Pin> = targets.into_iter().map(pin).collect();
    if pins.len() > 1 {
        if upgrades {
            return Err(Failure::Input("--migrate is about one service at a time".to_owned()));
        }
        if strict {
            return Err(Failure::Input("--strict is about one service at a time".to_owned()));
        }
        let changes = pins.into_iter().map(Kind::PinPut).collect();
        return apply(session, changes, &write, &attempted, &done).await;
    }
    let request = PutPinRequest { pin: pins.pop(), write: write.options(), migrate: upgrades, strict };
    let patience = if strict { write.patience().max(STRICT_WAIT) } else { write.patience() };
    let request = session.request_waiting(request, patience);
    let mut client = session.pins().await?;
    let response = session.call_waiting(&attempted, patience, client.put_pin(request)).await?;
    match (response.upgrade.as_str(), write.wait) {
        ("", _) => write::show(session, &response, response.result.as_ref(), &done),
        (upgrade, None) => session.show(&response, || waiting(upgrade)),
        (upgrade, Some(wait)) => migrate::pinned(session, upgrade, wait, &done).await,
    }
}

async fn delete(session: &Session, args: Delete) -> Result<(), Failure> {
    let Delete { words, selection, write } = args;
    if let Some(tenants) = selection.selector()? {
        let [service] = <[_; 1]>::try_from(words)
            .map_err(|_| Failure::Input("pins of many tenants are of one service at a time".to_owned()))?;
        let request = PutPinsRequest { service, remove: true, ..PutPinsRequest::default() };
        return put_many(session, PutPinsRequest { tenants: Some(tenants), ..request }, &write).await;
    }
    let (tenant, mut services) = first(words)?;
    let attempted = format!("remove `{tenant}`'s pins of {}", services.join(" and "));
    let done = format!("removed {tenant}'s pins of {}", services.join(" and "));
    if services.len() > 1 {
        let removed = |service| Kind::PinRemoved(PinRemoved { tenant: tenant.clone(), service });
        let changes = services.into_iter().map(removed).collect();
        return apply(session, changes, &write, &attempted, &done).await;
    }
    let service = services.pop().unwrap_or_default();
    let request = DeletePinRequest { tenant, service, write: write.options() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.pins().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.delete_pin(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

/// Pins many tenants, or removes their pins, at one revision.
async fn put_many(session: &Session, request: PutPinsRequest, write: &Write) -> Result<(), Failure> {
    let PutPinsRequest { service, version, remove, .. } = &request;
    let (attempted, done) = match remove {
        true => (format!("remove pins of {service}"), format!("pins of {service} removed")),
        false => (format!("pin tenants to {service} {version}"), format!("pinned to {service} {version}")),
    };
    let request = PutPinsRequest { write: write.options(), ..request };
    // Many tenants take their time.
    let patience = write.patience() + write::BULK;
    let request = session.request_waiting(request, patience);
    let mut client = session.pins().await?;
    let response = session.call_waiting(&attempted, patience, client.put_pins(request)).await?;
    if response.selected == 0 {
        return Err(Failure::Input("no tenant is meant; nothing was changed".to_owned()));
    }
    let done = format!("{} of {} tenants {done}", response.changed, response.selected);
    write::show(session, &response, response.result.as_ref(), &done)
}

/// The tenant, and the words after it.
fn first(mut words: Vec<String>) -> Result<(String, Vec<String>), Failure> {
    if words.len() < 2 {
        let message = "say a tenant and services, or select tenants by --all, --tier, --region, --label, --status, \
                       --list or --on-version";
        return Err(Failure::Input(message.to_owned()));
    }
    Ok((words.remove(0), words))
}

/// All changes at one revision, or none.
async fn apply(
    session: &Session,
    changes: Vec<Kind>,
    write: &Write,
    attempted: &str,
    done: &str,
) -> Result<(), Failure> {
    let proposed =
        |change| ProposedChange { change: Some(Change { change: Some(change) }), expected_revision: None };
    let changes = changes.into_iter().map(proposed).collect();
    let request = ApplyChangeSetRequest { changes, write: write.options() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.pins().await?;
    let response =
        session.call_waiting(attempted, write.patience(), client.apply_change_set(request)).await?;
    write::show(session, &response, response.result.as_ref(), done)
}

/// What is said of a pin that is not set yet.
fn waiting(upgrade: &str) -> String {
    plain(&format!("the pin waits for upgrade {upgrade}; see `grey migrate watch {upgrade}`")) + "\n"
}

/// `payment v2.1`, or any number of `payment=v2.1`.
fn read_targets(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    if let [service, version] = words
        && !service.contains('=')
        && !version.contains('=')
    {
        return Ok(vec![(service.clone(), version.clone())]);
    }
    let read = |word: &String| match word.split_once('=') {
        Some((service, version)) if !service.is_empty() && !version.is_empty() => {
            Ok((service.to_owned(), version.to_owned()))
        }
        _ => {
            Err(Failure::Input(format!("`{word}`: say SERVICE VERSION, or SERVICE=VERSION for each service")))
        }
    };
    words.iter().map(read).collect()
}

fn list_text(response: &ListPinsResponse) -> String {
    let rows = response.pins.iter().map(|pin| {
        let locked = if pin.locked { "yes" } else { "" };
        let revision = pin.revision.to_string();
        [pin.tenant.clone(), pin.service.clone(), pin.version.clone(), locked.to_owned(), revision]
    });
    let mut text = table(["TENANT", "SERVICE", "VERSION", "LOCKED", "REVISION"], rows);
    if !response.next_page_token.is_empty() {
        text.push_str("there are more; raise --limit\n");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn targets_are_a_service_and_its_version_or_pairs() {
        let one = vec![("payment".to_owned(), "v2.1".to_owned())];
        assert_eq!(read_targets(&words("payment v2.1")).unwrap(), one);
        assert_eq!(read_targets(&words("payment=v2.1")).unwrap(), one);
        assert_eq!(read_targets(&words("payment=v2.1 orders=v2.0")).unwrap().len(), 2);
        for wrong in ["payment", "payment=", "=v2.1", "payment v2.1 orders", "payment=v2.1 orders"] {
            assert!(matches!(read_targets(&words(wrong)), Err(Failure::Input(_))), "{wrong}");
        }
    }

    #[test]
    fn pins_are_listed_in_columns() {
        let pin = |service: &str, locked| Pin {
            tenant: "acme".to_owned(),
            service: service.to_owned(),
            version: "v2.1".to_owned(),
            locked,
            revision: 12,
        };
        let response =
            ListPinsResponse { pins: vec![pin("orders", false), pin("payment", true)], ..Default::default() };
        insta::assert_snapshot!(list_text(&response), @"
        TENANT  SERVICE  VERSION  LOCKED  REVISION
        acme    orders   v2.1     -       12
        acme    payment  v2.1     yes     12
        ");
    }
}
