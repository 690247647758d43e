//! `grey instance`: instances, as the routers are told of them.

use std::io::{self, Write as _};

use clap::Subcommand;
use grey_proto::router;
use grey_state::{State, redis};
use tokio::time::timeout;

use super::Failure;
use super::output::table;
use super::session::Session;

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the instances of every service
    List {
        /// Where shared state is: the URL of its Redis
        #[arg(long, value_name = "URL", env = "GREY_REDIS", hide_env_values = true)]
        redis: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { redis } => list(session, redis).await,
        }
    }
}

async fn connect(url: String) -> Result<State, Failure> {
    let options = redis::Options { urls: vec![url], ..redis::Options::default() };
    State::redis(&options).await.map_err(failed("connect to shared state"))
}

fn failed(attempted: &str) -> impl Fn(grey_state::Error) -> Failure {
    let attempted = attempted.to_owned();
    move |source| Failure::State { attempted: attempted.clone(), source }
}

async fn list(session: &Session, redis: String) -> Result<(), Failure> {
    let state = connect(redis).await?;
    let loaded = timeout(session.timeout(), state.instances.load()).await;
    let late = |_| Failure::Late { attempted: "read instances".to_owned(), deadline: session.timeout() };
    let loaded = loaded.map_err(late)?;
    let loaded = loaded.map_err(failed("read instances"))?;
    let lists: Vec<router::ServiceInstances> =
        loaded.lists.iter().map(|list| (&list.service, list.instances.as_slice()).into()).collect();
    for damaged in &loaded.damaged {
        writeln!(io::stderr(), "damaged: {}", damaged.why).map_err(Failure::Output)?;
    }
    session.show(&lists, || list_text(&lists))
}

fn list_text(lists: &[router::ServiceInstances]) -> String {
    let rows = lists.iter().flat_map(|list| {
        list.instances.iter().map(|instance| {
            let state = match (instance.disabled, instance.unhealthy) {
                (true, _) => "disabled",
                (_, true) => "unhealthy",
                _ => "ready",
            };
            [
                list.service.clone(),
                instance.version.clone(),
                instance.id.clone(),
                instance.address.clone(),
                instance.region.clone(),
                instance.zone.clone(),
                instance.weight.to_string(),
                state.to_owned(),
                instance.source.clone(),
            ]
        })
    });
    table(["SERVICE", "VERSION", "INSTANCE", "ADDRESS", "REGION", "ZONE", "WEIGHT", "STATE", "SOURCE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_listed_with_their_state() {
        let instance = router::Instance {
            id: "payment-1".to_owned(),
            address: "10.0.0.1:8080".to_owned(),
            version: "v2.1".to_owned(),
            zone: "a".to_owned(),
            weight: 100,
            unhealthy: true,
            source: "dc-1".to_owned(),
            ..router::Instance::default()
        };
        let list = router::ServiceInstances { service: "payment".to_owned(), instances: vec![instance] };
        insta::assert_snapshot!(list_text(&[list]), @"
        SERVICE  VERSION  INSTANCE   ADDRESS        REGION  ZONE  WEIGHT  STATE      SOURCE
        payment  v2.1     payment-1  10.0.0.1:8080  -       a     100     unhealthy  dc-1
        ");
    }
}
