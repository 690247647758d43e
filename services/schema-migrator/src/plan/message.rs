//! Plans and findings as messages.

use super::{Plan, PlannedStep};
use crate::files::{Fault, Repeatable, Statement, Step};
use crate::lint::{Finding, Level};
use grey_core::ids::TenantId;
use grey_proto::schema;

impl Plan {
    /// The plan as a message about a tenant.
    #[must_use]
    pub fn to_message(&self, tenant: &TenantId) -> schema::UpgradePlan {
        let version = |version: &Option<grey_core::schema::SchemaVersion>| {
            version.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        schema::UpgradePlan {
            tenant: tenant.to_string(),
            service: self.service.to_string(),
            dialect: self.dialect.to_string(),
            from_schema: version(&self.from),
            to_schema: version(&self.to),
            steps: {
                let versions = self.steps.iter().map(|step| self.step_message(step));
                versions.chain(self.repeatables.iter().map(|it| repeatable_message(it))).collect()
            },
            findings: self.findings.iter().map(schema::Finding::from).collect(),
            refused: self.verdict().is_err(),
            stopped_before: self.stopped.as_ref().map(|it| it.migration.file.clone()).unwrap_or_default(),
        }
    }

    fn step_message(&self, step: &PlannedStep) -> schema::PlannedStep {
        let migration = &step.migration;
        let (file, checksum) = match (self.direction, &migration.undo) {
            (super::Direction::Down, Some(undo)) => (&undo.file, &undo.checksum),
            _ => (&migration.file, &migration.checksum),
        };
        let sql = |check: &Statement| check.sql.clone();
        schema::PlannedStep {
            schema: migration.schema.to_string(),
            description: migration.description.clone(),
            file: file.clone(),
            checksum: checksum.to_string(),
            transactional: step.transactional(self.direction),
            undoable: migration.undo.is_some(),
            statements: step.steps(self.direction).iter().map(Step::to_string).collect(),
            checks: step.checks(self.direction).iter().map(sql).collect(),
            findings: step.findings.iter().map(schema::Finding::from).collect(),
        }
    }
}

fn repeatable_message(it: &Repeatable) -> schema::PlannedStep {
    schema::PlannedStep {
        description: it.description.clone(),
        file: it.file.clone(),
        checksum: it.checksum.to_string(),
        transactional: it.transactional,
        statements: it.steps.iter().map(Step::to_string).collect(),
        ..schema::PlannedStep::default()
    }
}

impl From<Level> for schema::FindingLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Warning => Self::Warning,
            Level::Refusal => Self::Refusal,
            Level::Error => Self::Error,
        }
    }
}

impl From<&Finding> for schema::Finding {
    fn from(finding: &Finding) -> Self {
        Self {
            level: schema::FindingLevel::from(finding.level).into(),
            rule: finding.rule.to_owned(),
            message: finding.message.clone(),
            file: finding.file.clone(),
            line: finding.line,
        }
    }
}

/// A fault of a file is a finding that nothing can accept.
impl From<&Fault> for Finding {
    fn from(fault: &Fault) -> Self {
        Self {
            level: Level::Error,
            rule: fault.kind.rule(),
            message: fault.kind.to_string(),
            file: fault.file.clone(),
            line: fault.line,
        }
    }
}
