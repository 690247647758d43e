//! Whether the service can serve, and why not.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as GrpcHealth, HealthServer},
};

use crate::shutdown::Shutdown;

/// A cheap handle: the service writes it, the admin endpoint and the gRPC health service read it.
#[derive(Debug, Clone)]
pub struct Health {
    status: Arc<watch::Sender<Status>>,
    draining: CancellationToken,
}

/// What `/health/ready` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Why not; absent when ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What an operator should know besides, such as the age of a stale snapshot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<&'static str, String>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Not ready, because starting.
    pub fn new() -> Self {
        let starting = Status { ready: false, reason: Some("starting".into()), details: BTreeMap::new() };
        Self { status: Arc::new(watch::Sender::new(starting)), draining: CancellationToken::new() }
    }

    /// The same handle, but never ready once `draining` is cancelled, whatever the service says.
    #[must_use]
    pub fn with_draining(mut self, draining: CancellationToken) -> Self {
        self.draining = draining;
        self
    }

    /// Ready, or not ready without a better reason.
    pub fn set_ready(&self, ready: bool) {
        let reason = if ready { None } else { Some(Cow::Borrowed("not ready")) };
        self.set(ready, reason);
    }

    /// Not ready, because of `reason`.
    pub fn set_not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(false, Some(reason.into()));
    }

    fn set(&self, ready: bool, reason: Option<Cow<'static, str>>) {
        self.status.send_if_modified(|status| {
            let changed = status.ready != ready || status.reason != reason;
            status.ready = ready;
            status.reason = reason;
            changed
        });
    }

    /// Adds or replaces a remark that does not decide readiness, such as `("snapshot", "stale for 12s")`.
    pub fn set_detail(&self, name: &'static str, text: impl Into<String>) {
        self.status.send_modify(|status| {
            status.details.insert(name, text.into());
        });
    }

    /// Takes a remark back.
    pub fn clear_detail(&self, name: &'static str) {
        self.status.send_if_modified(|status| status.details.remove(name).is_some());
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.status.borrow().ready && !self.draining.is_cancelled()
    }

    /// The whole answer.
    pub fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        if self.draining.is_cancelled() {
            status.ready = false;
            status.reason = Some("draining".into());
        }
        status
    }

    /// The standard gRPC health service, following this handle until the drain begins.
    pub fn grpc(&self, shutdown: &Shutdown) -> HealthServer<impl GrpcHealth + use<>> {
        let (reporter, server) = tonic_health::server::health_reporter();
        let (health, draining) = (self.clone(), shutdown.token());
        shutdown.spawn("grpc health", async move {
            let mut changes = health.status.subscribe();
            loop {
                let serving = health.is_ready() && !draining.is_cancelled();
                let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("", status).await;
                if draining.is_cancelled() {
                    return;
                }
                tokio::select! {
                    // The sender lives in `health`, so this cannot fail.
                    _ = changes.changed() => {}
                    () = draining.cancelled() => {}
                }
            }
        });
        server
    }
}
