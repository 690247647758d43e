//! Reads the whole projection.

use super::super::connection::{Link, failure, pipelined};
use super::super::keys;
use super::super::values::{corrupt, items, text};
use super::damage::Damages;
use super::tenant::Reader;
use crate::Error;
use crate::projection::Damage;
use grey_core::ids::{InvalidId, ServiceId, TenantId};
use grey_core::key::RecordId;
use grey_core::record::{Record, ServiceRecord};
use grey_proto::codec;
use redis::{Pipeline, Value, cmd};

const ATTEMPTED: &str = "load the projection";
/// Tenants asked for at once, three commands each. Few, so that a load needs little memory besides the table.
const TENANTS: usize = 16;
/// Services asked for at once.
const SERVICES: usize = 200;
/// Records handed out at once.
const BATCH: usize = 32;

pub(super) async fn load(
    link: &Link,
    take: &mut (dyn FnMut(Vec<Record>) + Send),
) -> Result<Vec<Damage>, Error> {
    let mut damages = Damages::default();
    let services = members(link, keys::SERVICES, ServiceId::new, &mut damages).await?;
    for chunk in services.chunks(SERVICES) {
        let records = self::services(link, chunk, &mut damages).await?;
        if !records.is_empty() {
            take(records);
        }
    }

    let tenants = members(link, keys::TENANTS, TenantId::new, &mut damages).await?;
    let mut reader = Reader::default();
    let mut records = Vec::with_capacity(BATCH + TENANTS);
    let asked: Vec<_> = tenants.chunks(TENANTS).map(|chunk| ask(link, chunk)).collect();
    pipelined(asked.into_iter(), |(chunk, answers): (&[TenantId], Vec<Value>)| {
        for (id, hashes) in chunk.iter().zip(answers.chunks_exact(3)) {
            let record = reader.record(id, [&hashes[0], &hashes[1], &hashes[2]], &mut damages)?;
            records.extend(record.map(Record::Tenant));
        }
        if records.len() >= BATCH {
            take(std::mem::replace(&mut records, Vec::with_capacity(BATCH + TENANTS)));
        }
        Ok(())
    })
    .await?;
    if !records.is_empty() {
        take(records);
    }
    Ok(damages.into_found())
}

async fn members<T>(
    link: &Link,
    key: &str,
    id: fn(&str) -> Result<T, InvalidId>,
    damages: &mut Damages,
) -> Result<Vec<T>, Error> {
    let members = link.run(ATTEMPTED, key, cmd("SMEMBERS").arg(key)).await;
    let members = damages.sift(members.and_then(|members| items(key, members)), || None)?;
    let mut ids = Vec::new();
    for member in members.unwrap_or_default() {
        let read = text(key, &member).and_then(|member| id(member).map_err(|why| corrupt(key, &why)));
        ids.extend(damages.sift(read, || None)?);
    }
    Ok(ids)
}

async fn services(link: &Link, ids: &[ServiceId], damages: &mut Damages) -> Result<Vec<Record>, Error> {
    let mut ask = Pipeline::with_capacity(ids.len());
    for id in ids {
        ask.cmd("GET").arg(keys::service_policy(id.as_str()));
    }
    let mut records = Vec::with_capacity(ids.len());
    for (id, answer) in ids.iter().zip(link.batch(ATTEMPTED, &ask).await?) {
        let key = keys::service_policy(id.as_str());
        let read = match answer {
            // Removed since the index was read.
            Value::Nil => continue,
            Value::ServerError(error) => Err(failure(ATTEMPTED, &key, error.into())),
            answer => text(&key, &answer).and_then(|text| service(id, &key, text)),
        };
        let record = damages.sift(read, || Some(RecordId::Service(id.clone())))?;
        records.extend(record.map(Record::Service));
    }
    Ok(records)
}

/// Reads a service's record.
pub(super) fn service(id: &ServiceId, key: &str, text: &str) -> Result<ServiceRecord, Error> {
    let record = codec::decode_service_record(text).map_err(|why| corrupt(key, &why))?;
    if record.service.id != *id {
        return Err(corrupt(key, &format!("it is about service `{}`", record.service.id)));
    }
    Ok(record)
}

async fn ask<'a>(link: &Link, ids: &'a [TenantId]) -> Result<(&'a [TenantId], Vec<Value>), Error> {
    let mut ask = Pipeline::with_capacity(3 * ids.len());
    for id in ids {
        let id = id.as_str();
        ask.cmd("HGETALL").arg(keys::tenant_metadata(id));
        ask.cmd("HGETALL").arg(keys::tenant_services(id));
        ask.cmd("HGETALL").arg(keys::tenant_schemas(id));
    }
    Ok((ids, link.batch(ATTEMPTED, &ask).await?))
}
