//! Writes single records anew.

use super::super::connection::pipelined;
use super::super::keys;
use super::super::scripts::{self, Script};
use super::super::stream::verdict;
use super::index::MEMBERS;
use super::{RedisProjection, all_written, guard, tenant};
use crate::projection::Repair;
use crate::{Error, FencingToken};
use grey_core::change::Position;
use grey_core::key::RecordId;
use grey_core::record::{Record, TenantRecord};
use grey_core::tenant::TenantStatus;
use grey_proto::codec;
use redis::{Cmd, Pipeline};
use std::collections::BTreeMap;

const ATTEMPTED: &str = "repair the projection";
/// Records written at once.
const RECORDS: usize = 100;

/// A record to be written, or to be removed.
struct Unit<'a, R> {
    id: &'a str,
    record: Option<&'a R>,
}

pub(super) async fn repair(
    projection: &RedisProjection,
    token: FencingToken,
    at: &Position,
    repairs: &[Repair],
) -> Result<(), Error> {
    projection.read_status(ATTEMPTED).await?.fence(ATTEMPTED, token)?;
    let (mut services, mut tenants) = (Vec::new(), Vec::new());
    for repair in repairs {
        match repair {
            Repair::Put(Record::Service(record)) => {
                services.push(Unit { id: record.service.id.as_str(), record: Some(record) });
            }
            Repair::Put(Record::Tenant(record)) => {
                tenants.push(Unit { id: record.tenant.id.as_str(), record: Some(record) });
            }
            Repair::Remove(RecordId::Service(id)) => services.push(Unit { id: id.as_str(), record: None }),
            Repair::Remove(RecordId::Tenant(id)) => tenants.push(Unit { id: id.as_str(), record: None }),
        }
    }

    let guard = guard(token, at);
    let (script, token) = (&scripts::SERVICE_REPLACE, token.0);
    replace(projection, script, &services, keys::service_guard, |unit| {
        let mut call = script.on(&[keys::service_policy(unit.id), keys::service_guard(unit.id)]);
        call.arg(token).arg(&guard).arg(unit.record.map(codec::encode_service_record).unwrap_or_default());
        call
    })
    .await?;
    let script = &scripts::TENANT_REPLACE;
    replace(projection, script, &tenants, keys::tenant_metadata, |unit| {
        let id = unit.id;
        let keys = [keys::tenant_metadata(id), keys::tenant_services(id), keys::tenant_schemas(id)];
        let mut call = script.on(&keys);
        call.arg(token);
        if let Some(record) = unit.record {
            add_tenant(&mut call, &guard, record);
        }
        call
    })
    .await?;
    index(projection, &services, &tenants).await
}

async fn replace<R>(
    projection: &RedisProjection,
    script: &Script,
    units: &[Unit<'_, R>],
    guarded: fn(&str) -> String,
    call: impl Fn(&Unit<'_, R>) -> Cmd,
) -> Result<(), Error> {
    let call = &call;
    let works: Vec<_> = units
        .chunks(RECORDS)
        .map(|chunk| async move {
            let mut calls = Pipeline::with_capacity(chunk.len());
            for unit in chunk {
                calls.add_command(call(unit));
            }
            let answers = projection.link.call_batch(ATTEMPTED, script, &calls).await?;
            for (unit, answer) in chunk.iter().zip(&answers) {
                verdict(ATTEMPTED, &guarded(unit.id), answer)?;
            }
            Ok(())
        })
        .collect();
    pipelined(works.into_iter(), |()| Ok(())).await
}

/// The fields of the tenant's three hashes, each behind their number.
fn add_tenant(call: &mut Cmd, guard: &str, record: &TenantRecord) {
    let mut metadata = tenant::metadata(&record.tenant);
    let holds = record.holds.iter().map(|(service, hold)| (tenant::hold_field(service), tenant::hold(hold)));
    metadata.extend(holds);
    metadata.push((tenant::GUARD.to_owned(), guard.to_owned()));
    let pins = record.pins.iter().map(|(service, pin)| (service.to_string(), tenant::pin(pin))).collect();
    let seen = record.schemas.iter().map(|(service, seen)| (service.to_string(), tenant::schema(seen)));
    for fields in [metadata, pins, seen.collect()] {
        call.arg(fields.len());
        for (field, value) in fields {
            call.arg(field).arg(value);
        }
    }
}

async fn index<S>(
    projection: &RedisProjection,
    services: &[Unit<'_, S>],
    tenants: &[Unit<'_, TenantRecord>],
) -> Result<(), Error> {
    let mut members: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut put = |index, id, is_member| {
        members.entry((if is_member { "SADD" } else { "SREM" }, index)).or_default().push(id);
    };
    for unit in services {
        put(keys::SERVICES, unit.id, unit.record.is_some());
    }
    for unit in tenants {
        let is_active = |record: &TenantRecord| record.tenant.status == TenantStatus::Active;
        put(keys::TENANTS, unit.id, unit.record.is_some());
        put(keys::ACTIVE_TENANTS, unit.id, unit.record.is_some_and(is_active));
    }
    let mut commands = Pipeline::new();
    for ((command, index), ids) in members {
        for ids in ids.chunks(MEMBERS) {
            commands.cmd(command).arg(index).arg(ids);
        }
    }
    all_written(ATTEMPTED, projection.link.batch(ATTEMPTED, &commands).await?, |_| "the indexes".to_owned())
}
