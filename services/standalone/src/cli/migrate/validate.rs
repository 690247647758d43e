//! `grey migrate validate`: migration files without a database.

use clap::Args;
use grey_core::error::Reason;
use grey_proto::schema::{FindingLevel, ValidateRequest, ValidateResponse};
use grey_proto::status::ApiError;

use super::super::Failure;
use super::super::session::Session;
use super::{Dialect, text};

/// Whose files.
#[derive(Debug, Args)]
pub struct Validate {
    /// The service
    service: String,
    /// Only as this kind of database reads them; else as each does
    #[arg(long, value_enum)]
    dialect: Option<Dialect>,
    /// Accept the refusals of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    accept: Vec<String>,
}

impl Validate {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, dialect, accept } = self;
        let mut client = session.schemas().await?;
        let attempted = format!("validate the migrations of `{service}`");
        let dialect = dialect.map(Dialect::name).unwrap_or_default().to_owned();
        let request = session.request(ValidateRequest { service: service.clone(), dialect });
        let response = session.call(&attempted, client.validate(request)).await?;
        session.show(&response, || validate_text(&service, &response))?;
        match against(&response, &accept) {
            0 => Ok(()),
            count => {
                let text = format!("{count} findings forbid to run them");
                let error = ApiError::new(Reason::MigrationRefused, text);
                Err(Failure::Refused { attempted, error })
            }
        }
    }
}

/// How many findings forbid to run a migration.
fn against(response: &ValidateResponse, accept: &[String]) -> usize {
    let forbids = |level, rule: &String| match level {
        FindingLevel::Unspecified | FindingLevel::Warning => false,
        FindingLevel::Refusal => !accept.contains(rule),
        FindingLevel::Error => true,
    };
    response.findings.iter().filter(|finding| forbids(finding.level(), &finding.rule)).count()
}

fn validate_text(service: &str, response: &ValidateResponse) -> String {
    let mut text: String =
        response.findings.iter().map(|finding| format!("{}\n", text::finding(finding))).collect();
    let (migrations, findings) = (response.migrations, response.findings.len());
    text.push_str(&format!("{migrations} migrations of {service} read, {findings} findings\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::schema::Finding;

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
        let response = ValidateResponse { findings, migrations: 3 };
        assert_eq!(against(&response, &[]), 2);
        assert_eq!(against(&response, &["destructive".to_owned(), "name".to_owned()]), 1);
        insta::assert_snapshot!(validate_text("orders", &response), @"
        warning: V1.2__drop.sql:4: drops a column [missing_undo]
        refused: V1.2__drop.sql:4: drops a column [destructive]
        ERROR: V1.2__drop.sql:4: drops a column [name]
        3 migrations of orders read, 3 findings
        ");
    }
}
