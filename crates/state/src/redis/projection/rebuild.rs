//! Replaces the whole projection.

use super::super::connection::pipelined;
use super::super::stream::verdict;
use super::super::values::{corrupt, items, text};
use super::super::{keys, scripts};
use super::{RedisProjection, all_written, guard, tenant};
use crate::projection::{ProjectionStatus, Rebuild, STATUS_KEY};
use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::change::Position;
use grey_core::record::Record;
use grey_core::tenant::TenantStatus;
use grey_proto::codec;
use redis::{Pipeline, cmd};
use uuid::Uuid;

const ATTEMPTED: &str = "rebuild the projection";
/// Records written at once, up to three commands each.
const RECORDS: usize = 100;
/// Keys looked at by the server for one answer.
const SCAN: usize = 1_000;
/// Walks over all servers before giving up because they change all the time.
const WALKS: usize = 5;

pub(super) struct RedisRebuild<'a> {
    projection: &'a RedisProjection,
    token: FencingToken,
    position: Position,
    name: String,
}

impl<'a> RedisRebuild<'a> {
    /// Withdraws the status and deletes what any projection left behind.
    pub(super) async fn begin(
        projection: &'a RedisProjection,
        token: FencingToken,
        position: &Position,
    ) -> Result<Self, Error> {
        let name = Uuid::new_v4().to_string();
        let script = &scripts::PROJECTION_BEGIN;
        let mut call = script.on(&[STATUS_KEY]);
        call.arg(token.0).arg(&name);
        let answer = projection.link.call(ATTEMPTED, STATUS_KEY, script, &call).await?;
        verdict(ATTEMPTED, STATUS_KEY, &answer)?;
        let rebuild = Self { projection, token, position: *position, name };
        rebuild.delete_all().await?;
        Ok(rebuild)
    }

    async fn check(&self) -> Result<(), Error> {
        let status = self.projection.read_status(ATTEMPTED).await?;
        status.fence(ATTEMPTED, self.token)?;
        if status.rebuild.as_ref() != Some(&self.name) {
            let newest = status.token.unwrap_or(self.token).0;
            return Err(Error::Fenced { attempted: ATTEMPTED, newest });
        }
        Ok(())
    }

    async fn delete_all(&self) -> Result<(), Error> {
        let link = &self.projection.link;
        let mut indexes = Pipeline::new();
        for index in [keys::SERVICES, keys::TENANTS, keys::ACTIVE_TENANTS] {
            indexes.cmd("UNLINK").arg(index);
        }
        all_written(ATTEMPTED, link.batch(ATTEMPTED, &indexes).await?, |_| "the indexes".to_owned())?;
        // What the indexes name is not all: they may have been lost, or belong to another projection.
        for _ in 0..WALKS {
            let masters = link.masters(ATTEMPTED).await?;
            for master in &masters {
                for pattern in ["tenant:{*", "service:{*"] {
                    let mut cursor = "0".to_owned();
                    loop {
                        let mut scan = cmd("SCAN");
                        scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN);
                        let answer = items("", link.run_on(ATTEMPTED, *master, &scan).await?)?;
                        let [next, found] = <[_; 2]>::try_from(answer)
                            .map_err(|_| corrupt(pattern, "the answer to a scan is no pair"))?;
                        self.delete(items("", found)?).await?;
                        text("", &next)?.clone_into(&mut cursor);
                        if cursor == "0" {
                            break;
                        }
                    }
                }
            }
            if link.masters(ATTEMPTED).await? == masters {
                return Ok(());
            }
        }
        Err(Error::Timeout { attempted: ATTEMPTED, deadline: link.response_timeout() })
    }

    async fn delete(&self, found: Vec<redis::Value>) -> Result<(), Error> {
        let mut unlink = Pipeline::new();
        for key in &found {
            // Foreign keys need not even be text.
            if let Ok(key) = text("", key)
                && keys::is_projected(key)
            {
                unlink.cmd("UNLINK").arg(key);
            }
        }
        let answers = self.projection.link.batch(ATTEMPTED, &unlink).await?;
        all_written(ATTEMPTED, answers, |_| "a key of an older projection".to_owned())
    }

    async fn put(&self, commands: Pipeline) -> Result<(), Error> {
        let answers = self.projection.link.batch(ATTEMPTED, &commands).await?;
        all_written(ATTEMPTED, answers, |place| {
            let command = commands.cmd_iter().nth(place);
            let key = command.and_then(|command| match command.args_iter().nth(1) {
                Some(redis::Arg::Simple(key)) => Some(String::from_utf8_lossy(key).into_owned()),
                _ => None,
            });
            key.unwrap_or_default()
        })
    }

    /// The commands that write some records into empty keys.
    fn commands(&self, records: &[Record]) -> Pipeline {
        let guard = guard(self.token, &self.position);
        let mut commands = Pipeline::with_capacity(3 * records.len() + 3);
        let [mut services, mut tenants, mut active] = [keys::SERVICES, keys::TENANTS, keys::ACTIVE_TENANTS]
            .map(|index| (cmd("SADD").arg(index).clone(), 0));
        for record in records {
            match record {
                Record::Service(record) => {
                    let id = record.service.id.as_str();
                    let text = codec::encode_service_record(record);
                    commands.cmd("SET").arg(keys::service_policy(id)).arg(text);
                    commands.cmd("SET").arg(keys::service_guard(id)).arg(&guard);
                    services.0.arg(id);
                    services.1 += 1;
                }
                Record::Tenant(record) => {
                    let id = record.tenant.id.as_str();
                    let metadata = commands.cmd("HSET").arg(keys::tenant_metadata(id));
                    for (field, value) in tenant::metadata(&record.tenant) {
                        metadata.arg(field).arg(value);
                    }
                    for (service, hold) in &record.holds {
                        metadata.arg(tenant::hold_field(service)).arg(tenant::hold(hold));
                    }
                    metadata.arg(tenant::GUARD).arg(&guard);
                    if !record.pins.is_empty() {
                        let pins = commands.cmd("HSET").arg(keys::tenant_services(id));
                        for (service, pin) in &record.pins {
                            pins.arg(service.as_str()).arg(tenant::pin(pin));
                        }
                    }
                    if !record.schemas.is_empty() {
                        let schemas = commands.cmd("HSET").arg(keys::tenant_schemas(id));
                        for (service, seen) in &record.schemas {
                            schemas.arg(service.as_str()).arg(tenant::schema(seen));
                        }
                    }
                    tenants.0.arg(id);
                    tenants.1 += 1;
                    if record.tenant.status == TenantStatus::Active {
                        active.0.arg(id);
                        active.1 += 1;
                    }
                }
            }
        }
        for (index, members) in [services, tenants, active] {
            if members > 0 {
                commands.add_command(index);
            }
        }
        commands
    }
}

#[async_trait]
impl Rebuild for RedisRebuild<'_> {
    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        self.check().await?;
        let rebuild = &*self;
        let puts: Vec<_> =
            records.chunks(RECORDS).map(|chunk| rebuild.put(rebuild.commands(chunk))).collect();
        pipelined(puts.into_iter(), |()| Ok(())).await
    }

    async fn finish(self: Box<Self>, status: &ProjectionStatus) -> Result<(), Error> {
        let script = &scripts::PROJECTION_FINISH;
        let mut call = script.on(&[STATUS_KEY]);
        call.arg(self.token.0).arg(&self.name).arg(status.position.epoch.0);
        call.arg(status.position.revision.0).arg(status.digests.to_string()).arg(status.level.0);
        let answer = self.projection.link.call(ATTEMPTED, STATUS_KEY, script, &call).await?;
        verdict(ATTEMPTED, STATUS_KEY, &answer).map(drop)
    }
}
