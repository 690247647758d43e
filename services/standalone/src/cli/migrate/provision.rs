//! `grey tenant provision`: a database that is not there yet, made, migrated, registered.

use clap::Args;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{Provision as Made, ProvisionRequest, ProvisionResponse, ProvisionState, Upgrade};

use super::super::Failure;
use super::super::output::plain;
use super::super::session::Session;
use super::{Goal, follow, text};

/// Whose database, and where.
#[derive(Debug, Args)]
pub struct Provision {
    /// The tenant; it must be declared
    tenant: String,
    /// The service, for which the tenant has no database
    #[arg(long)]
    service: String,
    /// Where it is made: a name in [provisioning] of the migrator; not needed if there is only one
    #[arg(long, value_name = "SITE", default_value = "", hide_default_value = true)]
    site: String,
    #[command(flatten)]
    goal: Goal,
    /// Leave the tenant's status as it is, such as while other services are not provisioned
    #[arg(long)]
    inactive: bool,
    /// Why, kept with the upgrade and in the log of changes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Make nothing; print what would be made and run
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it has ended
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
}

impl Provision {
    pub(in super::super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { tenant, service, site, goal, inactive, reason, dry_run, detach } = self;
        let attempted = format!("provision `{tenant}`'s database for {service}");
        let request =
            ProvisionRequest { tenant, service, site, target: goal.target(), inactive, reason, dry_run };
        let mut client = session.schemas().await?;
        let call = client.provision(session.request(request));
        let mut response: ProvisionResponse = session.call(&attempted, call).await?;
        let Some(Upgrade { id, .. }) = response.upgrade.clone() else {
            return session.show(&response, || planned(&response));
        };
        if detach {
            return session.show(&response, || format!("{}upgrade {}\n", steps(&response), plain(&id)));
        }
        if !session.json() {
            super::super::output::print(&steps(&response))?;
        }
        let ended = follow::alone(session, &id).await?;
        response.provision.clone_from(&ended.provision);
        response.upgrade = Some(ended);
        session.show(&response, || done(&response))?;
        follow::succeeded(response.upgrade.as_slice())
    }
}

/// What is made, in words.
fn place(made: &Made) -> String {
    let Made { server, database, schema, role, .. } = made;
    match made.kind() {
        DatabaseKind::File => format!("file {server}"),
        DatabaseKind::Schema => format!("schema {schema} in {database} on {server}, and role {role}"),
        DatabaseKind::Database | DatabaseKind::Unspecified => {
            format!("database {database} on {server}, and role {role}")
        }
    }
}

/// The steps, one a line.
fn steps(response: &ProvisionResponse) -> String {
    let made = response.provision.clone().unwrap_or_default();
    let plan = response.plan.clone().unwrap_or_default();
    let files = match plan.steps.len() {
        0 => "nothing".to_owned(),
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let way = text::way(&plan.from_schema, &plan.to_schema);
    let active = if made.activate { format!(", and make {} active", plan.tenant) } else { String::new() };
    let lines = [
        format!("1. make {}", place(&made)),
        format!("2. run {files}: {way}"),
        format!("3. register it for {}{active}", plan.service),
    ];
    lines.iter().map(|line| format!("{}\n", plain(line))).collect()
}

fn planned(response: &ProvisionResponse) -> String {
    let plan = response.plan.clone().unwrap_or_default();
    let tenants = [plan.tenant.clone()];
    format!("dry run, nothing was made:\n{}\n{}", steps(response), text::plan(&tenants, &plan))
}

/// What there is now, unless that was said as an error.
fn done(response: &ProvisionResponse) -> String {
    let made = response.provision.clone().unwrap_or_default();
    if made.state() != ProvisionState::Registered {
        return String::new();
    }
    let plan = response.plan.clone().unwrap_or_default();
    let active = if made.activate { format!("; {} is active", plan.tenant) } else { String::new() };
    plain(&format!("registered for {}: {}{active}", plan.service, place(&made))) + "\n"
}

/// What goes on besides the files.
pub(super) fn stage(upgrade: &Upgrade) -> Option<&'static str> {
    match upgrade.provision.as_ref()?.state() {
        ProvisionState::Unspecified | ProvisionState::Waiting => None,
        ProvisionState::Making => Some("make the database"),
        ProvisionState::Made => Some("the database is made"),
        ProvisionState::Registered => Some("registered"),
        ProvisionState::Removed => Some("what was made is gone again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::schema::{PlannedStep, UpgradePlan};

    #[test]
    fn steps_say_what_is_made_run_and_registered() {
        let provision = Made {
            kind: DatabaseKind::Database.into(),
            server: "db:5432".to_owned(),
            database: "orders_acme".to_owned(),
            role: "grey_1f".to_owned(),
            activate: true,
            ..Made::default()
        };
        let plan = UpgradePlan {
            tenant: "acme".to_owned(),
            service: "orders".to_owned(),
            to_schema: "1.2".to_owned(),
            steps: vec![PlannedStep::default(), PlannedStep::default()],
            ..UpgradePlan::default()
        };
        let mut response = ProvisionResponse { provision: Some(provision), plan: Some(plan), upgrade: None };
        insta::assert_snapshot!(steps(&response), @"
        1. make database orders_acme on db:5432, and role grey_1f
        2. run 2 files: nothing -> 1.2
        3. register it for orders, and make acme active
        ");
        assert_eq!(done(&response), "");
        if let Some(made) = &mut response.provision {
            made.set_state(ProvisionState::Registered);
            made.set_kind(DatabaseKind::File);
            made.server = "/data/acme.db".to_owned();
        }
        assert_eq!(done(&response), "registered for orders: file /data/acme.db; acme is active\n");
    }
}
