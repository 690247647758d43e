//! `grey events`: the log of changes, and whether it is as it was written.

use clap::Args;
use grey_core::change::Principal;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    Change, Event, ListEventsRequest, ListEventsResponse, VerifyEventsRequest, VerifyEventsResponse,
    WatchEventsRequest,
};
use grey_proto::convert::parse_time;
use pbjson_types::Timestamp;

use super::Failure;
use super::database::place;
use super::output::{self, plain, table};
use super::session::{Session, failure_of};

/// Which events.
#[derive(Debug, Args)]
pub struct Events {
    /// Only events after this revision, oldest first; else the newest ones
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Only events before this revision
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["follow", "verify"])]
    before: Option<u64>,
    /// Only changes of this tenant, or of what ties it to services
    #[arg(long, conflicts_with_all = ["follow", "verify"])]
    tenant: Option<String>,
    /// Only changes of this service, or of what ties tenants to it
    #[arg(long, conflicts_with_all = ["follow", "verify"])]
    service: Option<String>,
    /// Only events by this principal
    #[arg(long, value_name = "ID", conflicts_with_all = ["follow", "verify"])]
    actor: Option<String>,
    /// Only events of this time and later: by RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["follow", "verify"])]
    from: Option<Timestamp>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["follow", "verify"])]
    to: Option<Timestamp>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Print each event as it is committed, until interrupted; with --json one document per line
    #[arg(long, conflicts_with = "limit")]
    follow: bool,
    /// Check instead that events are as they were written, by the hash that each keeps of the one before it
    #[arg(long, conflicts_with_all = ["limit", "follow"])]
    verify: bool,
}

impl Events {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match (self.verify, self.follow) {
            (true, _) => verify(session, self.after.unwrap_or_default()).await,
            (false, true) => follow(session, self.after).await,
            (false, false) => self.list(session).await,
        }
    }

    async fn list(self, session: &Session) -> Result<(), Failure> {
        let newest_first = self.after.is_none();
        let mut request = ListEventsRequest {
            after: self.after.unwrap_or_default(),
            before: self.before.unwrap_or_default(),
            limit: self.limit,
            newest_first,
            tenant: self.tenant.unwrap_or_default(),
            service: self.service.unwrap_or_default(),
            actor: self.actor.unwrap_or_default(),
            from: self.from,
            to: self.to,
        };
        let mut client = session.history().await?;
        let mut listed = ListEventsResponse::default();
        loop {
            let call = client.list_events(session.request(request.clone()));
            let page = session.call("list events", call).await?;
            let told = u32::try_from(page.events.len()).unwrap_or(u32::MAX);
            let events = std::mem::take(&mut listed.events);
            listed = ListEventsResponse { events: [events, page.events].concat(), ..page };
            // What one page looks at is bounded, and so is what it holds.
            request.limit = request.limit.saturating_sub(told);
            if listed.next == 0 || request.limit == 0 {
                break;
            }
            *(if newest_first { &mut request.before } else { &mut request.after }) = listed.next;
        }
        if newest_first {
            listed.events.reverse();
        }
        session.show(&listed, || list_text(&listed, newest_first))
    }
}

/// Checks the log in pieces, to its end or to the first event that is not as it was written.
async fn verify(session: &Session, after: u64) -> Result<(), Failure> {
    let mut client = session.history().await?;
    let mut seen = VerifyEventsResponse { revision: after, ..VerifyEventsResponse::default() };
    while !seen.complete && seen.broken == 0 {
        // Where a piece begins is taken as it is: the last event of one is proven by the next, which begins before it.
        let from = seen.revision.saturating_sub(1).max(after);
        let request = VerifyEventsRequest { after: from, limit: 0 };
        seen = session.call("verify events", client.verify_events(session.request(request))).await?;
    }
    session.show(&seen, || match seen.revision {
        last if last > after => format!("events {} to {last} are as they were written\n", after + 1),
        _ if seen.broken == 0 => format!("there is no event after {after}\n"),
        _ => String::new(),
    })?;
    match seen.broken {
        0 => Ok(()),
        revision => Err(Failure::Touched { revision, why: seen.why }),
    }
}

async fn follow(session: &Session, after: Option<u64>) -> Result<(), Failure> {
    let mut client = session.history().await?;
    let after = match after {
        Some(after) => after,
        None => {
            let newest = ListEventsRequest { limit: 1, newest_first: true, ..ListEventsRequest::default() };
            session
                .call("read the log's revision", client.list_events(session.request(newest)))
                .await?
                .revision
        }
    };
    // No deadline on the stream itself: it lasts until its reader has seen enough.
    let watch = client.watch_events(WatchEventsRequest { after });
    let mut events = session.call("follow events", watch).await?;
    loop {
        let refused =
            |status| Failure::Refused { attempted: "follow events".to_owned(), error: failure_of(&status) };
        let next = tokio::select! {
            next = events.message() => next.map_err(refused)?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(event) = next.and_then(|response| response.event) else { return Ok(()) };
        let line = if session.json() {
            serde_json::to_string(&event).map_err(|error| {
                Failure::Server(anyhow::Error::new(error).context("write an event as JSON"))
            })?
        } else {
            plain(&line(&event).join("  "))
        };
        output::print(&(line + "\n"))?;
    }
}

fn list_text(response: &ListEventsResponse, newest_first: bool) -> String {
    let listed = table(["REVISION", "AT", "WHO", "CHANGES", "REASON"], response.events.iter().map(line));
    match response.next {
        0 => listed,
        next => {
            let option = if newest_first { "--before" } else { "--after" };
            format!("{listed}more follow: go on with {option} {next}\n")
        }
    }
}

fn line(event: &Event) -> [String; 5] {
    let at = event.at.as_ref().and_then(|at| serde_json::to_value(at).ok());
    let at = at.as_ref().and_then(|at| at.as_str()).unwrap_or_default().to_owned();
    let changes: Vec<_> = event.changes.iter().take(3).map(change).collect();
    let told = u64::try_from(event.changes.len().saturating_sub(3)).unwrap_or(u64::MAX);
    let more = match told.saturating_add(event.omitted) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let changes = changes.join(", ") + &more;
    let who = Principal::from(event.principal.clone().unwrap_or_default()).to_string();
    [event.revision.to_string(), at, who, changes, event.reason.clone()]
}

fn change(change: &Change) -> String {
    match &change.change {
        Some(Kind::TenantPut(tenant)) => format!("tenant {}", tenant.id),
        Some(Kind::TenantRemoved(removed)) => format!("tenant {} removed", removed.tenant),
        Some(Kind::ServicePut(service)) => {
            format!("service {} default {}", service.id, service.default_version)
        }
        Some(Kind::ServiceRemoved(removed)) => format!("service {} removed", removed.service),
        Some(Kind::VersionPut(version)) => format!("version {} {}", version.service, version.version),
        Some(Kind::VersionRemoved(removed)) => {
            format!("version {} {} removed", removed.service, removed.version)
        }
        Some(Kind::PolicyPut(policy)) => format!("policy {}", policy.service),
        Some(Kind::PolicyRemoved(removed)) => format!("policy {} removed", removed.service),
        Some(Kind::OverlayPut(overlay)) => format!("overlay {} {}", overlay.service, overlay.id),
        Some(Kind::OverlayRemoved(removed)) => {
            format!("overlay {} {} removed", removed.service, removed.overlay)
        }
        Some(Kind::PinPut(pin)) => {
            let locked = if pin.locked { " locked" } else { "" };
            format!("pin {} {} {}{locked}", pin.tenant, pin.service, pin.version)
        }
        Some(Kind::DatabasePut(database)) => {
            format!("database {} {} at {}", database.tenant, database.service, place(database))
        }
        Some(Kind::DatabaseRemoved(removed)) => {
            format!("database {} {} forgotten", removed.tenant, removed.service)
        }
        Some(Kind::HoldPut(hold)) => format!("hold {} {} for {}", hold.tenant, hold.service, hold.to),
        Some(Kind::HoldRemoved(removed)) => format!("hold {} {} removed", removed.tenant, removed.service),
        Some(Kind::PinRemoved(removed)) => format!("pin {} {} removed", removed.tenant, removed.service),
        Some(Kind::SchemaObserved(seen)) => {
            format!("schema {} {} {}", seen.tenant, seen.service, seen.schema)
        }
        None => "a change of a newer release".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::control::{self, DatabaseRemoved, Pin, Tenant, TenantDatabase};

    #[test]
    fn events_are_listed_with_their_changes() {
        let pin = Pin {
            tenant: "acme".to_owned(),
            service: "payment".to_owned(),
            version: "v2.1".to_owned(),
            ..Pin::default()
        };
        let tenant = Tenant { id: "acme".to_owned(), ..Tenant::default() };
        let changes = [
            Kind::PinPut(pin),
            Kind::TenantPut(tenant.clone()),
            Kind::TenantPut(tenant.clone()),
            Kind::TenantPut(tenant),
        ];
        let event = Event {
            revision: 12,
            at: Some(pbjson_types::Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
            principal: Some(control::Principal {
                id: "ann".to_owned(),
                role: "admin".to_owned(),
                via: "schema-migrator".to_owned(),
            }),
            reason: "acme asked for it".to_owned(),
            changes: changes.into_iter().map(|change| Change { change: Some(change) }).collect(),
            ..Event::default()
        };
        let large = Event { omitted: 9_000, ..event.clone() };
        assert!(line(&large)[3].ends_with(" and 9001 more"), "{:?}", line(&large));
        let response = ListEventsResponse { events: vec![event], ..ListEventsResponse::default() };
        insta::assert_snapshot!(list_text(&response, true), @"
        REVISION  AT                             WHO                      CHANGES                                                     REASON
        12        2027-01-15T08:00:00.005+00:00  ann via schema-migrator  pin acme payment v2.1, tenant acme, tenant acme and 1 more  acme asked for it
        ");
        let cut = ListEventsResponse { next: 12, ..response };
        assert!(list_text(&cut, true).ends_with("\nmore follow: go on with --before 12\n"));
        assert!(list_text(&cut, false).ends_with("\nmore follow: go on with --after 12\n"));
    }

    #[test]
    fn databases_are_told_by_their_place() {
        let told = |kind| change(&Change { change: Some(kind) });
        let (tenant, service) = ("acme".to_owned(), "payment".to_owned());
        let database = TenantDatabase {
            tenant: tenant.clone(),
            service: service.clone(),
            dialect: "postgres".to_owned(),
            server: "db:5432".to_owned(),
            database: "acme".to_owned(),
            ..TenantDatabase::default()
        };
        assert_eq!(told(Kind::DatabasePut(database)), "database acme payment at postgres db:5432 acme");
        let removed = DatabaseRemoved { tenant, service };
        assert_eq!(told(Kind::DatabaseRemoved(removed)), "database acme payment forgotten");
    }
}
