//! Pins: one query reads what the rules need to know of any number of them, one statement writes them.

use std::fmt::Write;

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::service::Pin;
use grey_core::version::Version;
use grey_proto::status::ApiError;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Statement};

use super::super::attempt::{
    Attempt, Outcome, during, moving, unknown_service, unknown_tenant, unknown_version,
};
use super::super::error::Error;
use super::super::proposal::{Proposed, pin_of};
use crate::database;
use crate::entity::{pins, versions};

/// What the rules need to know of one pin.
#[derive(Debug, FromQueryResult)]
struct Facts {
    position: i32,
    known_tenant: Option<String>,
    known_service: Option<String>,
    known_version: Option<String>,
    schema_min: Option<String>,
    schema_max: Option<String>,
    schema_version: Option<String>,
    moving: Option<String>,
    pinned: Option<String>,
    locked: Option<bool>,
    revision: Option<i64>,
}

const FACTS: &str = ") SELECT w.position, t.id AS known_tenant, s.id AS known_service, v.version AS known_version, \
    v.schema_min, v.schema_max, o.schema_version, h.to_version AS moving, p.version AS pinned, p.locked, p.revision \
    FROM wanted w \
    LEFT JOIN tenants t ON t.id = w.tenant LEFT JOIN services s ON s.id = w.service \
    LEFT JOIN versions v ON v.service = w.service AND v.version = w.version \
    LEFT JOIN observed_schemas o ON o.tenant = w.tenant AND o.service = w.service \
    LEFT JOIN holds h ON h.tenant = w.tenant AND h.service = w.service \
    LEFT JOIN pins p ON p.tenant = w.tenant AND p.service = w.service";

/// What one change of a pin asks for; no pin: none.
struct Wanted<'a> {
    tenant: &'a TenantId,
    service: &'a ServiceId,
    pin: Option<&'a Pin>,
}

fn wanted(change: &Change) -> Option<Wanted<'_>> {
    pin_of(change).map(|(tenant, service, pin)| Wanted { tenant, service, pin })
}

/// Checks and applies a run of changes that are all of pins.
pub(in super::super) async fn apply(attempt: &Attempt<'_>, run: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let wanted: Vec<Wanted<'_>> = run.iter().filter_map(|proposed| wanted(&proposed.change)).collect();
    let facts = read(attempt, &wanted).await?;
    let mut outcomes = Vec::with_capacity(run.len());
    let (mut put, mut gone) = (Vec::new(), Vec::new());
    for ((proposed, wanted), facts) in run.iter().zip(&wanted).zip(&facts) {
        proposed.expect(facts.revision)?;
        let Wanted { tenant, service, pin } = wanted;
        check_known(wanted, facts)?;
        let Some(pin) = pin else {
            if facts.revision.is_none() {
                let message = format!("tenant `{tenant}` has no pin to service `{service}`");
                let unknown = ApiError::new(Reason::UnknownPin, message);
                return Err(unknown.with("tenant", tenant.as_str()).with("service", service.as_str()).into());
            }
            gone.push((tenant.to_string(), service.to_string()));
            outcomes.push(Outcome::removed(proposed));
            continue;
        };
        check_version(wanted, pin, facts)?;
        match facts.revision {
            Some(revision)
                if facts.pinned.as_deref() == Some(pin.version.as_str())
                    && facts.locked == Some(pin.locked) =>
            {
                outcomes.push(Outcome::unchanged(revision));
            }
            _ => {
                put.push(pins::Model::of(tenant, service, pin, attempt.revision));
                outcomes.push(attempt.changed(proposed));
            }
        }
    }
    attempt.write(pins::Entity, put, "write pins").await?;
    remove(attempt, gone).await?;
    Ok(outcomes)
}

async fn read(attempt: &Attempt<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<Facts>, Error> {
    let mut sql = "WITH wanted (position, tenant, service, version) AS (VALUES ".to_owned();
    let mut values = Vec::with_capacity(wanted.len() * 3);
    for (position, Wanted { tenant, service, pin }) in wanted.iter().enumerate() {
        let comma = if position == 0 { "" } else { ", " };
        let at = values.len();
        write!(sql, "{comma}({position}, ${}, ${}, ${})", at + 1, at + 2, at + 3)
            .expect("writing to a string does not fail");
        let version = pin.map_or("", |pin| pin.version.as_str());
        values.extend([tenant.as_str().into(), service.as_str().into(), version.into()]);
    }
    sql.push_str(FACTS);
    let backend = attempt.transaction.get_database_backend();
    let statement = Statement::from_sql_and_values(backend, sql, values);
    let facts = Facts::find_by_statement(statement).all(attempt.transaction).await;
    let mut facts = facts.map_err(during("read what a pin depends on"))?;
    // The database may join in any order.
    facts.sort_unstable_by_key(|facts| facts.position);
    Ok(facts)
}

fn check_known(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), ApiError> {
    if facts.known_tenant.is_none() {
        return Err(unknown_tenant(wanted.tenant.as_str()));
    }
    if facts.known_service.is_none() {
        return Err(unknown_service(wanted.service.as_str()));
    }
    match &facts.moving {
        Some(to) => Err(moving(wanted.tenant, wanted.service, to)),
        None => Ok(()),
    }
}

/// Refuses what a pin of the tenant to the version would be refused for; tells when there was a pin set last.
pub(super) async fn check(
    attempt: &Attempt<'_>,
    tenant: &TenantId,
    service: &ServiceId,
    version: &Version,
) -> Result<Option<i64>, Error> {
    let pin = Pin { version: version.clone(), locked: false };
    let wanted = Wanted { tenant, service, pin: Some(&pin) };
    let facts = read(attempt, std::slice::from_ref(&wanted)).await?;
    let Some(facts) = facts.first() else { return Ok(None) };
    check_known(&wanted, facts)?;
    check_version(&wanted, &pin, facts)?;
    Ok(facts.revision)
}

/// A tenant is never pinned to a version whose schema it does not have.
fn check_version(wanted: &Wanted<'_>, pin: &Pin, facts: &Facts) -> Result<(), Error> {
    let Wanted { tenant, service, .. } = wanted;
    if facts.known_version.is_none() {
        return Err(unknown_version(service, &pin.version).into());
    }
    let window = versions::window(facts.schema_min.as_deref(), facts.schema_max.as_deref())?;
    let corrupt = |why: grey_core::schema::InvalidSchemaVersion| {
        Error::Database(database::Error::Corrupt { table: "observed_schemas", why: why.to_string() })
    };
    let observed = facts.schema_version.as_deref().map(str::parse).transpose().map_err(corrupt)?;
    if window.admits(observed.as_ref()) {
        return Ok(());
    }
    let version = &pin.version;
    let has = match &facts.schema_version {
        Some(schema) => format!("has schema {schema}"),
        None => "has no observed schema".to_owned(),
    };
    let message = format!(
        "tenant `{tenant}` {has} for service `{service}`, but version {version} works on schema {window}; upgrade its \
         database first, or say migrate=true to have it upgraded and pinned then"
    );
    let refusal = ApiError::new(Reason::NoLegalVersion, message)
        .with("tenant", tenant.as_str())
        .with("service", service.as_str())
        .with("version", version.as_str())
        .with("schema", facts.schema_version.clone().unwrap_or_default())
        .with("window", window.to_string());
    Err(refusal.into())
}

async fn remove(attempt: &Attempt<'_>, gone: Vec<(String, String)>) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let key = [pins::Column::Tenant, pins::Column::Service].map(Expr::col);
    let delete = pins::Entity::delete_many().filter(Expr::tuple(key).in_tuples(gone));
    delete.exec(attempt.transaction).await.map_err(during("remove pins"))?;
    Ok(())
}
