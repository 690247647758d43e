//! `grey route`: where a call goes.

use clap::Args;
use grey_proto::router::{DecisionReason, RouteRequest, RouteResponse};

use super::output::{fields, pairs, word};
use super::session::Session;
use super::{Failure, pair};

/// A call to be decided.
#[derive(Debug, Args)]
pub struct Route {
    #[command(flatten)]
    call: Call,
    /// Decide on this revision or a later one
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    min_revision: u64,
}

/// What is known of a call.
#[derive(Debug, Args)]
pub(super) struct Call {
    /// Who the call is made for
    tenant: String,
    /// The service that is called
    service: String,
    /// Attribute of the call; may be given several times
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// The user within the tenant
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// A key of the call, for rules that split by request and for hashing
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    request_key: String,
    /// The caller's region; the router's if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// The caller's zone; the router's if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    zone: String,
    /// Ask for this version, where the policy lets the caller
    #[arg(long = "override", value_name = "VERSION", default_value = "", hide_default_value = true)]
    override_version: String,
}

impl Call {
    pub(super) fn into_request(self, min_revision: u64) -> RouteRequest {
        RouteRequest {
            tenant: self.tenant,
            service: self.service,
            metadata: self.metadata.into_iter().collect(),
            user: self.user,
            request_key: self.request_key,
            region: self.region,
            zone: self.zone,
            min_revision,
            override_version: self.override_version,
            min_epoch: 0,
        }
    }
}

impl Route {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let request = self.call.into_request(self.min_revision);
        let attempted = format!("route `{}`'s call of `{}`", request.tenant, request.service);
        let mut client = session.router().await?;
        let response = session.call(&attempted, client.route(session.request(request))).await?;
        session.show(&response, || decision_text(&response))
    }
}

/// The decision, one fact per line.
pub(super) fn decision_text(decision: &RouteResponse) -> String {
    let instance = decision.instance.clone().unwrap_or_default();
    fields([
        ("version", decision.version.clone()),
        ("instance", instance.id),
        ("address", instance.address),
        ("region", instance.region),
        ("zone", instance.zone),
        ("metadata", pairs(&instance.metadata)),
        ("reason", reason_word(decision)),
        ("rule", decision.rule.clone()),
        ("wanted", decision.wanted_version.clone()),
        ("schema", decision.schema.clone()),
        ("revision", decision.revision.to_string()),
        ("stale", if decision.stale { "yes".to_owned() } else { String::new() }),
    ])
}

pub(super) fn reason_word(decision: &RouteResponse) -> String {
    match decision.reason() {
        DecisionReason::Unspecified => String::new(),
        reason => word(reason.as_str_name(), "DECISION_REASON_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::router::Instance;

    #[test]
    fn a_decision_is_one_fact_per_line() {
        let instance = Instance {
            id: "payment-1".to_owned(),
            address: "127.0.0.1:9001".to_owned(),
            zone: "a".to_owned(),
            ..Instance::default()
        };
        let decision = RouteResponse {
            version: "v2.1".to_owned(),
            instance: Some(instance),
            reason: DecisionReason::UnknownTenant.into(),
            revision: 17,
            stale: true,
            ..RouteResponse::default()
        };
        insta::assert_snapshot!(decision_text(&decision), @"
        version   v2.1
        instance  payment-1
        address   127.0.0.1:9001
        zone      a
        reason    unknown tenant
        revision  17
        stale     yes
        ");
    }
}
