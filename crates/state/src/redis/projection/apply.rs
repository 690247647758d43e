//! Projects events: each unit that they change is written once, and the position last.

use super::super::connection::pipelined;
use super::super::stream::verdict;
use super::super::values::{self, bytes, corrupt, items, parsed, text};
use super::super::{keys, scripts};
use super::batch::{Batch, Units};
use super::index::MEMBERS;
use super::{RedisProjection, all_written, guard, load, tenant};
use crate::projection::{ProjectionStatus, STATUS_KEY};
use crate::{Error, FencingToken};
use grey_core::change::{Change, Event, Position};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::record::Record;
use grey_core::tenant::TenantStatus;
use grey_proto::codec;
use redis::{Cmd, Pipeline, Value, cmd};
use std::collections::BTreeMap;

const ATTEMPTED: &str = "project events";
/// Tenants written at once.
const TENANTS: usize = 300;
/// Attempts to write a service that someone else writes at the same time.
const ATTEMPTS: usize = 10;

pub(super) async fn apply(
    projection: &RedisProjection,
    token: FencingToken,
    events: &[Event],
    reached: &ProjectionStatus,
) -> Result<(), Error> {
    let at = &reached.position;
    let status = projection.read_status(ATTEMPTED).await?;
    status.fence(ATTEMPTED, token)?;
    let missing = ProjectionStatus::missing(status.complete.as_ref(), at.epoch, events)?;
    let Some(first) = missing.first() else { return Ok(()) };
    let batch = Batch::of(missing);
    let services = batch.services.iter();
    let services: Vec<_> =
        services.map(|(service, changes)| change_service(projection, token, at, service, changes)).collect();
    pipelined(services.into_iter(), |()| Ok(())).await?;
    change_tenants(projection, token, at, &batch.tenants).await?;
    index(projection, &batch).await?;

    let script = &scripts::PROJECTION_REACHED;
    let mut call = script.on(&[STATUS_KEY]);
    call.arg(token.0).arg(at.epoch.0).arg(at.revision.0).arg(first.revision.before().0);
    call.arg(reached.digests.to_string()).arg(reached.level.0);
    let answer = projection.link.call(ATTEMPTED, STATUS_KEY, script, &call).await?;
    match verdict(ATTEMPTED, STATUS_KEY, &answer)? {
        "lost" => Err(corrupt(STATUS_KEY, "it was lost while events were projected")),
        _ => Ok(()),
    }
}

/// Reads the service, makes the changes and writes it back, unless the guard says that it has them.
async fn change_service(
    projection: &RedisProjection,
    token: FencingToken,
    at: &Position,
    id: &ServiceId,
    changes: &[&Change],
) -> Result<(), Error> {
    let keys = [keys::service_policy(id.as_str()), keys::service_guard(id.as_str())];
    let script = &scripts::SERVICE_SWAP;
    for _ in 0..ATTEMPTS {
        let mut read = cmd("MGET");
        read.arg(&keys[..]);
        let values = items(&keys[0], projection.link.run(ATTEMPTED, &keys[0], &read).await?)?;
        let value = |place: usize| match values.get(place) {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => text(&keys[place], value).map(Some),
        };
        let held = value(1)?;
        if let Some(held) = held
            && is_held(&keys[1], held, token, at)?
        {
            return Ok(());
        }
        let record = value(0)?.map(|text| load::service(id, &keys[0], text)).transpose()?;
        let record = record.map(Record::Service);
        let record = changes.iter().fold(record, |record, change| Record::fold(record, change));
        let mut call = script.on(&keys);
        call.arg(held.unwrap_or_default()).arg(guard(token, at));
        call.arg(match &record {
            Some(Record::Service(record)) => codec::encode_service_record(record),
            _ => String::new(),
        });
        let answer = projection.link.call(ATTEMPTED, &keys[0], script, &call).await?;
        if verdict(ATTEMPTED, &keys[0], &answer)? == "swapped" {
            return Ok(());
        }
    }
    Err(corrupt(&keys[1], "it changes all the time"))
}

/// Whether the last write to a unit contains the events up to `at`; refuses if a newer leader made it.
fn is_held(key: &str, held: &str, token: FencingToken, at: &Position) -> Result<bool, Error> {
    let mut parts = held.splitn(3, ' ');
    let (Some(newest), Some(revision), Some(epoch)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(corrupt(key, &format!("`{held}` is no position of a write")));
    };
    let newest = values::token(key, newest)?;
    if newest > token {
        return Err(Error::Fenced { attempted: ATTEMPTED, newest: newest.0 });
    }
    let revision: u64 = parsed(key, "the revision", revision)?;
    let epoch: u64 = parsed(key, "the epoch", epoch)?;
    if epoch == at.epoch.0 && revision > at.revision.0 {
        return Err(corrupt(key, "it is ahead of the projection"));
    }
    Ok(epoch == at.epoch.0 && revision == at.revision.0)
}

async fn change_tenants(
    projection: &RedisProjection,
    token: FencingToken,
    at: &Position,
    tenants: &Units<'_, TenantId>,
) -> Result<(), Error> {
    let script = &scripts::TENANT_CHANGE;
    let units: Vec<(&TenantId, &Vec<&Change>)> = tenants.iter().collect();
    let works: Vec<_> = units
        .chunks(TENANTS)
        .map(|chunk| async move {
            let mut calls = Pipeline::with_capacity(chunk.len());
            for (id, changes) in chunk {
                calls.add_command(tenant_call(token, at, id, changes));
            }
            let answers = projection.link.call_batch(ATTEMPTED, script, &calls).await?;
            let is_done =
                |answer: &Value| bytes(answer).is_some_and(|text| text == b"changed" || text == b"held");
            for ((id, _), answer) in chunk.iter().zip(&answers).filter(|(_, answer)| !is_done(answer)) {
                verdict(ATTEMPTED, &keys::tenant_metadata(id.as_str()), answer)?;
            }
            Ok(())
        })
        .collect();
    pipelined(works.into_iter(), |()| Ok(())).await
}

fn tenant_call(token: FencingToken, at: &Position, id: &TenantId, changes: &[&Change]) -> Cmd {
    // The order of the keys: the script is given the place of each.
    const METADATA: u8 = 1;
    const SERVICES: u8 = 2;
    const SCHEMAS: u8 = 3;
    let id = id.as_str();
    let keys = [keys::tenant_metadata(id), keys::tenant_services(id), keys::tenant_schemas(id)];
    let mut call = scripts::TENANT_CHANGE.on(&keys);
    call.arg(token.0).arg(at.revision.0).arg(at.epoch.0);
    for change in changes {
        match change {
            Change::Put(Fact::Tenant(tenant)) => {
                let metadata = tenant::metadata(tenant);
                call.arg("put").arg(metadata.len());
                for (field, value) in metadata {
                    call.arg(field).arg(value);
                }
            }
            Change::Removed(Key::Tenant(_)) => {
                call.arg("remove");
            }
            Change::Put(Fact::Pin(_, service, pin)) => {
                call.arg("set").arg(SERVICES).arg(service.as_str()).arg(tenant::pin(pin));
            }
            Change::Removed(Key::Pin(_, service)) => {
                call.arg("unset").arg(SERVICES).arg(service.as_str());
            }
            Change::Put(Fact::Schema(_, service, seen)) => {
                call.arg("set").arg(SCHEMAS).arg(service.as_str()).arg(tenant::schema(seen));
            }
            Change::Removed(Key::Schema(_, service)) => {
                call.arg("unset").arg(SCHEMAS).arg(service.as_str());
            }
            Change::Put(Fact::Hold(_, service, hold)) => {
                call.arg("set").arg(METADATA).arg(tenant::hold_field(service)).arg(tenant::hold(hold));
            }
            Change::Removed(Key::Hold(_, service)) => {
                call.arg("unset").arg(METADATA).arg(tenant::hold_field(service));
            }
            Change::Put(_) | Change::Removed(_) => {}
        }
    }
    call
}

/// Brings the index sets up to date, after the units that they name.
async fn index(projection: &RedisProjection, batch: &Batch<'_>) -> Result<(), Error> {
    let mut members: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for change in batch.services.values().chain(batch.tenants.values()).flatten() {
        match change {
            Change::Put(Fact::Service(service)) => {
                members.insert((keys::SERVICES, service.id.as_str()), true);
            }
            Change::Removed(Key::Service(service)) => {
                members.insert((keys::SERVICES, service.as_str()), false);
            }
            Change::Put(Fact::Tenant(tenant)) => {
                members.insert((keys::TENANTS, tenant.id.as_str()), true);
                let active = tenant.status == TenantStatus::Active;
                members.insert((keys::ACTIVE_TENANTS, tenant.id.as_str()), active);
            }
            Change::Removed(Key::Tenant(tenant)) => {
                members.insert((keys::TENANTS, tenant.as_str()), false);
                members.insert((keys::ACTIVE_TENANTS, tenant.as_str()), false);
            }
            Change::Put(_) | Change::Removed(_) => {}
        }
    }
    let mut by_command: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for ((index, id), is_member) in members {
        by_command.entry((if is_member { "SADD" } else { "SREM" }, index)).or_default().push(id);
    }
    let mut commands = Pipeline::new();
    for ((command, index), ids) in by_command {
        for ids in ids.chunks(MEMBERS) {
            commands.cmd(command).arg(index).arg(ids);
        }
    }
    all_written(ATTEMPTED, projection.link.batch(ATTEMPTED, &commands).await?, |_| "the indexes".to_owned())
}
