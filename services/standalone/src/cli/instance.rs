//! `grey instance`: instances, for deployments without a registry.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use grey_proto::router;
use grey_state::{State, redis};
use tokio::time::timeout;

use super::output::table;
use super::session::Session;
use super::{Failure, input};
use crate::instances;
use crate::registrar::Registrar;

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replace all instances of a service, of every version
    Set(Set),
    /// List the instances of every service
    List {
        /// Where shared state is: the URL of its Redis
        #[arg(long, value_name = "URL", env = "GREY_REDIS", hide_env_values = true)]
        redis: String,
    },
}

/// The instances of a service.
#[derive(Debug, Args)]
pub struct Set {
    /// The service
    service: String,
    /// `instances = [...]` as TOML, or `{"instances": [...]}` as JSON; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Where shared state is: the URL of its Redis
    #[arg(long, value_name = "URL", env = "GREY_REDIS", hide_env_values = true)]
    redis: String,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Set(args) => set(session, args).await,
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

fn late(attempted: &str, session: &Session) -> Failure {
    Failure::Late { attempted: attempted.to_owned(), deadline: session.timeout() }
}

async fn set(session: &Session, args: Set) -> Result<(), Failure> {
    let Set { service, file, redis } = args;
    let wrong = |why: instances::Error| Failure::Input(format!("{}: {why}", file.display()));
    let text = input::read(&file)?;
    let service_id =
        service.parse().map_err(|why: grey_core::ids::InvalidId| Failure::Input(why.to_string()))?;
    let list = instances::of_service(&text, &service_id).map_err(wrong)?;
    let registrar = Registrar::new(connect(redis).await?);
    let written = timeout(session.timeout(), registrar.replace(&list)).await;
    // Also after a failure: the next writer should not have to wait. If it fails, the lease expires by itself.
    drop(timeout(session.timeout(), registrar.release()).await);
    written.map_err(|_| late("write instances", session))??;
    let response: router::ServiceInstances = (&list.service, list.instances.as_slice()).into();
    let count = response.instances.len();
    session.show(&response, || format!("set {count} instances of {service}\n"))
}

async fn list(session: &Session, redis: String) -> Result<(), Failure> {
    let state = connect(redis).await?;
    let loaded = timeout(session.timeout(), state.instances.load()).await;
    let loaded = loaded.map_err(|_| late("read instances", session))?;
    let (lists, _) = loaded.map_err(failed("read instances"))?;
    let lists: Vec<router::ServiceInstances> =
        lists.iter().map(|list| (&list.service, list.instances.as_slice()).into()).collect();
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
            ]
        })
    });
    table(["SERVICE", "VERSION", "INSTANCE", "ADDRESS", "REGION", "ZONE", "WEIGHT", "STATE"], rows)
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
            ..router::Instance::default()
        };
        let list = router::ServiceInstances { service: "payment".to_owned(), instances: vec![instance] };
        insta::assert_snapshot!(list_text(&[list]), @"
        SERVICE  VERSION  INSTANCE   ADDRESS        REGION  ZONE  WEIGHT  STATE
        payment  v2.1     payment-1  10.0.0.1:8080  -       a     100     unhealthy
        ");
    }
}
