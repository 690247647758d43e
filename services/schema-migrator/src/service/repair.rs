//! What is half done, and declaring what became of it.

use super::{Api, reason, service_id, tenant_id};
use crate::files::{Checksum, Migration, Scripts, Step};
use crate::jobs::timestamp;
use crate::plan::Direction;
use crate::prepare::{database_error, invalid};
use crate::tenant::{self, Connection, Declared, Mark, Record, Repair};
use grey_core::schema::SchemaVersion;
use grey_edge::Caller;
use grey_proto::schema::{
    GetJournalRequest, GetJournalResponse, HalfDone, JournalStep, RepairOutcome, RepairRequest,
    RepairResponse, StepState, UpgradeDirection,
};
use grey_proto::status::ApiError;

impl Api {
    pub(super) async fn get_journal(
        &self,
        _: &Caller,
        request: GetJournalRequest,
    ) -> Result<GetJournalResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let found = self.grounds.registered(&tenant, &service).await?;
        let read = async {
            let connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await?;
            Box::pin(tenant::half_done(&connection)).await
        };
        let records = Box::pin(read).await.map_err(|error| database_error(&error))?;
        // Files that are faulty do not hide what is half done.
        let scripts = self.grounds.scripts(&service, found.target.dialect).await.ok();
        let mut versions: Vec<&SchemaVersion> = records.iter().map(|record| &record.version).collect();
        versions.dedup();
        let half_done = versions.into_iter().map(|version| HalfDone {
            tenant: tenant.to_string(),
            service: service.to_string(),
            ..half_done(version, &records, scripts.as_deref())
        });
        Ok(GetJournalResponse { half_done: half_done.collect() })
    }

    pub(super) async fn repair(
        &self,
        asker: &Caller,
        request: RepairRequest,
    ) -> Result<RepairResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        let schema = match request.schema.as_str() {
            "" => None,
            text => Some(SchemaVersion::new(text).map_err(|error| invalid("schema", error))?),
        };
        let declared = match RepairOutcome::try_from(request.outcome) {
            Ok(RepairOutcome::Applied) => Declared::Applied,
            Ok(RepairOutcome::Undone) => Declared::Undone,
            _ => return Err(invalid("outcome", "must be applied or undone")),
        };
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        let scripts = self.grounds.scripts(&service, connection.dialect()).await?.for_tenant(&tenant);
        let id = uuid::Uuid::now_v7().to_string();
        let repair = Repair {
            version: schema.as_ref(),
            declared,
            scripts: &scripts,
            actor: &asker.to_string(),
            id: &id,
        };
        let repaired = Box::pin(tenant::repair(&connection, &repair)).await;
        let version = repaired.map_err(|error| database_error(&error))?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            schema.version = %version,
            outcome = ?declared,
            actor = %asker,
            reason = why,
            "half-done migration is declared ended"
        );
        self.queue.repaired(tenant.as_str(), service.as_str()).await?;
        self.keep_catalog(&connection).await;
        let seen = Box::pin(self.look(&connection, &scripts)).await?;
        Ok(RepairResponse { schema: Some(seen) })
    }
}

/// What the records say of one version, with the statements if they are still the same.
fn half_done(version: &SchemaVersion, records: &[Record], scripts: Option<&Scripts>) -> HalfDone {
    let of_it: Vec<&Record> = records.iter().filter(|record| record.version == *version).collect();
    let migration = scripts.and_then(|scripts| scripts.get(version));
    let mut directions = vec![Direction::Up, Direction::Down];
    directions.retain(|direction| of_it.iter().any(|record| record.direction == *direction));
    let mut told = HalfDone {
        schema: version.to_string(),
        description: migration.map(|it| it.description.clone()).unwrap_or_default(),
        ..HalfDone::default()
    };
    if let Some(first) = of_it.first() {
        told.upgrade.clone_from(&first.upgrade);
        told.actor.clone_from(&first.actor);
        told.started_at = of_it.iter().map(|record| record.started_at_ms).min().map(timestamp);
    }
    if let Some(direction) = directions.first() {
        told.set_direction(message(*direction));
    }
    for direction in directions {
        let of_it: Vec<&Record> =
            of_it.iter().copied().filter(|record| record.direction == direction).collect();
        let begun = of_it.iter().find(|record| record.step == 0).and_then(|record| record.checksum.as_ref());
        let file = migration.and_then(|migration| file(migration, direction));
        match file.filter(|(checksum, _)| begun == Some(*checksum)) {
            Some((_, steps)) => told.steps.extend(with_statements(&of_it, steps, direction)),
            None => {
                told.file_changed = true;
                let steps = of_it.iter().filter(|record| record.step > 0);
                told.steps.extend(steps.map(|record| JournalStep {
                    direction: message(direction).into(),
                    line: record.line,
                    state: state(Some(record)).into(),
                    statement: String::new(),
                }));
            }
        }
    }
    told
}

/// Every step of a file, and how far it is.
fn with_statements<'a>(
    records: &'a [&'a Record],
    steps: &'a [Step],
    direction: Direction,
) -> impl Iterator<Item = JournalStep> + 'a {
    steps.iter().zip(1..).map(move |(step, number)| JournalStep {
        direction: message(direction).into(),
        line: step.line(),
        state: state(records.iter().find(|record| record.step == number).copied()).into(),
        statement: step.to_string(),
    })
}

fn file(migration: &Migration, direction: Direction) -> Option<(&Checksum, &[Step])> {
    match direction {
        Direction::Up => Some((&migration.checksum, &migration.steps)),
        Direction::Down => migration.undo.as_ref().map(|undo| (&undo.checksum, undo.steps.as_slice())),
    }
}

fn state(record: Option<&Record>) -> StepState {
    match record.map(|record| record.mark) {
        None => StepState::Waiting,
        Some(Mark::Started) => StepState::Running,
        Some(Mark::Begun | Mark::Done) => StepState::Done,
    }
}

fn message(direction: Direction) -> UpgradeDirection {
    match direction {
        Direction::Up => UpgradeDirection::Up,
        Direction::Down => UpgradeDirection::Down,
    }
}
