//! Reads the whole projection.

use super::super::connection::{Link, pipelined};
use super::super::keys;
use super::super::values::{corrupt, items, text};
use super::tenant::Reader;
use crate::Error;
use grey_core::change::Record;
use grey_core::ids::{InvalidId, ServiceId, TenantId};
use grey_proto::codec;
use redis::{Pipeline, Value, cmd};

const ATTEMPTED: &str = "load the projection";
/// Tenants asked for at once, three commands each. Few, so that a load needs little memory besides the table.
const TENANTS: usize = 16;
/// Services asked for at once.
const SERVICES: usize = 200;
/// Records handed out at once.
const BATCH: usize = 32;

pub(super) async fn load(link: &Link, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<(), Error> {
    let services = members(link, keys::SERVICES, ServiceId::new).await?;
    for chunk in services.chunks(SERVICES) {
        let records = self::services(link, chunk).await?;
        if !records.is_empty() {
            take(records);
        }
    }

    let tenants = members(link, keys::TENANTS, TenantId::new).await?;
    let mut reader = Reader::default();
    let mut records = Vec::with_capacity(BATCH + TENANTS);
    let asked: Vec<_> = tenants.chunks(TENANTS).map(|chunk| ask(link, chunk)).collect();
    pipelined(asked.into_iter(), |(chunk, answers): (&[TenantId], Vec<Value>)| {
        for (id, hashes) in chunk.iter().zip(answers.chunks_exact(3)) {
            let record = reader.record(id, &hashes[0], &hashes[1], &hashes[2])?;
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
    Ok(())
}

async fn members<T>(link: &Link, key: &str, id: fn(&str) -> Result<T, InvalidId>) -> Result<Vec<T>, Error> {
    let members = items(key, link.run(ATTEMPTED, key, cmd("SMEMBERS").arg(key)).await?)?;
    members.iter().map(|member| id(text(key, member)?).map_err(|why| corrupt(key, &why))).collect()
}

async fn services(link: &Link, ids: &[ServiceId]) -> Result<Vec<Record>, Error> {
    let mut ask = Pipeline::with_capacity(ids.len());
    for id in ids {
        ask.cmd("GET").arg(keys::service_policy(id.as_str()));
    }
    let mut records = Vec::with_capacity(ids.len());
    for (id, answer) in ids.iter().zip(link.batch(ATTEMPTED, &ask).await?) {
        let key = keys::service_policy(id.as_str());
        match answer {
            // Removed since the index was read.
            Value::Nil => {}
            Value::ServerError(error) => return Err(super::failure(ATTEMPTED, &key, error.into())),
            answer => records.push(Record::Service(service(id, &key, text(&key, &answer)?)?)),
        }
    }
    Ok(records)
}

/// Reads a service's record.
pub(super) fn service(
    id: &ServiceId,
    key: &str,
    text: &str,
) -> Result<grey_core::change::ServiceRecord, Error> {
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
