//! `grey migrate validate`: migration files without a database, or what databases have applied against the files.

use clap::Args;
use grey_core::error::Reason;
use grey_proto::schema::{
    Finding, FindingLevel, PlanRequest, UpgradePlan, ValidateRequest, ValidateResponse,
};
use grey_proto::status::ApiError;
use serde::Serialize;

use super::super::Failure;
use super::super::output::plain;
use super::super::session::Session;
use super::plan::{self, Unplanned};
use super::select::Selector;
use super::{Dialect, text};

/// Whose files, and against which databases.
#[derive(Debug, Args)]
pub struct Validate {
    /// The service
    service: String,
    /// Only as this kind of database reads them; else as those do that are registered for the service
    #[arg(long, value_enum)]
    dialect: Option<Dialect>,
    /// Accept the refusals of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    accept: Vec<String>,
    /// Also whether what these tenants' databases have applied is what the files say: all, tenants as a,b,c, tier=gold,
    /// region=eu, label:key=value; several joined by + must all hold
    #[arg(long, value_name = "SELECTOR")]
    tenants: Option<Selector>,
}

/// The document for programs, where databases were looked at.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    files: &'a ValidateResponse,
    tenants: Vec<Looked<'a>>,
    failures: Vec<Unplanned>,
}

/// What one database and the files do not agree about.
#[derive(Serialize)]
struct Looked<'a> {
    tenant: &'a str,
    schema: &'a str,
    findings: &'a [Finding],
}

impl Validate {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, dialect, accept, tenants } = self;
        let mut client = session.schemas().await?;
        let attempted = format!("validate the migrations of `{service}`");
        let dialect = dialect.map(Dialect::name).unwrap_or_default().to_owned();
        let request = session.request(ValidateRequest { service: service.clone(), dialect });
        let response = session.call(&attempted, client.validate(request)).await?;
        let mut against_files = against(&response.findings, &accept);
        let mut failures = Vec::new();
        match tenants {
            None => session.show(&response, || validate_text(&service, &response))?,
            // Files with faults cannot be compared with anything.
            Some(_) if response.findings.iter().any(|it| it.level() == FindingLevel::Error) => {
                let document = Document { files: &response, tenants: Vec::new(), failures: Vec::new() };
                let text = || format!("{}no database was compared\n", validate_text(&service, &response));
                session.show(&document, text)?;
            }
            Some(tenants) => {
                let selected = tenants.resolve(session).await?;
                let request = PlanRequest { service: service.clone(), ..PlanRequest::default() };
                let (plans, unplanned) = plan::ask(session, &selected, &request).await?;
                let document = Document {
                    files: &response,
                    tenants: plans.iter().map(looked).collect(),
                    failures: unplanned.iter().map(Unplanned::new).collect(),
                };
                session.show(&document, || {
                    format!("{}{}", validate_text(&service, &response), databases_text(&plans))
                })?;
                against_files += plans.iter().map(|plan| against(&plan.findings, &accept)).sum::<usize>();
                failures.extend(unplanned.into_iter().map(|(_, failure)| failure));
            }
        }
        if against_files > 0 {
            let text = format!("{against_files} findings forbid to run them");
            let error = ApiError::new(Reason::MigrationRefused, text);
            failures.push(Failure::Refused { attempted, error });
        }
        plan::all_of(failures)
    }
}

fn looked(plan: &UpgradePlan) -> Looked<'_> {
    Looked { tenant: &plan.tenant, schema: &plan.from_schema, findings: &plan.findings }
}

fn databases_text(plans: &[UpgradePlan]) -> String {
    let mut lines = String::new();
    for plan in plans {
        for finding in &plan.findings {
            lines.push_str(&format!("{}: {}\n", plain(&plan.tenant), text::finding(finding)));
        }
    }
    let agree = plans.iter().filter(|plan| plan.findings.is_empty()).count();
    lines.push_str(&format!("{agree} of {} databases agree with the files\n", plans.len()));
    lines
}

/// How many findings forbid to run a migration.
fn against(findings: &[Finding], accept: &[String]) -> usize {
    let forbids = |level, rule: &String| match level {
        FindingLevel::Unspecified | FindingLevel::Warning => false,
        FindingLevel::Refusal => !accept.contains(rule),
        FindingLevel::Error => true,
    };
    findings.iter().filter(|finding| forbids(finding.level(), &finding.rule)).count()
}

fn validate_text(service: &str, response: &ValidateResponse) -> String {
    let mut text: String =
        response.findings.iter().map(|finding| format!("{}\n", text::finding(finding))).collect();
    let (migrations, findings) = (response.migrations, response.findings.len());
    let dialects = response.dialects.join(" and ");
    text.push_str(&format!(
        "{migrations} migrations of {service} read for {dialects}, {findings} findings\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_count_unless_their_rule_is_accepted() {
        let finding = |level: FindingLevel, rule: &str| Finding {
            level: level.into(),
            rule: rule.to_owned(),
            message: "drops a column".to_owned(),
            file: "V1.2__drop.sql".to_owned(),
            line: 4,
        };
        let findings = vec![
            finding(FindingLevel::Warning, "missing_undo"),
            finding(FindingLevel::Refusal, "destructive"),
            finding(FindingLevel::Error, "name"),
        ];
        let dialects = vec!["postgres".to_owned(), "mysql".to_owned()];
        let response = ValidateResponse { findings, migrations: 3, dialects };
        assert_eq!(against(&response.findings, &[]), 2);
        assert_eq!(against(&response.findings, &["destructive".to_owned(), "name".to_owned()]), 1);
        insta::assert_snapshot!(validate_text("orders", &response), @"
        warning: V1.2__drop.sql:4: drops a column [missing_undo]
        refused: V1.2__drop.sql:4: drops a column [destructive]
        ERROR: V1.2__drop.sql:4: drops a column [name]
        3 migrations of orders read for postgres and mysql, 3 findings
        ");
    }
}
