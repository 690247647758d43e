//! What every registry does, whatever lies behind it. Each kind brings an [`Upstream`] and calls [`conforms`].

use async_trait::async_trait;
use grey_registry_sync::registry::{Registered, Registry};

use crate::following::Following;

/// The place that a registry reads from, as a test changes it.
#[async_trait]
pub(crate) trait Upstream: Send {
    /// A registry that follows this place with little waiting.
    fn registry(&self) -> Box<dyn Registry>;
    /// Makes `instances` all that `service` has. Addresses, weights and metadata count; the rest is as usual.
    async fn put(&mut self, service: &str, instances: &[Registered]);
    /// Takes a service away with all its instances.
    async fn remove_service(&mut self, service: &str);
    /// From now on nothing can be read.
    async fn break_it(&mut self);
    /// It can be read again and lists what was put before.
    async fn mend_it(&mut self);
}

/// The instance `number` of any service, of `version`.
pub(crate) fn registered(number: u8, version: &str) -> Registered {
    let address = format!("10.0.0.{number}:8080");
    Registered {
        id: address.clone(),
        address,
        weight: 100,
        enabled: true,
        healthy: true,
        metadata: [("version".to_owned(), version.to_owned())].into(),
        ..Registered::default()
    }
}

/// Drives a registry through all that the trait promises.
pub(crate) async fn conforms(mut upstream: impl Upstream) {
    upstream.put("payment", &[registered(1, "v1.0.0"), registered(2, "v1.0.0")]).await;
    upstream.put("order", &[registered(3, "v1.0.0")]).await;
    let following = Following::start(upstream.registry());

    following.until("everything is told first", |seen| seen.alls > 0).await;
    {
        let seen = following.seen();
        assert_eq!(seen.first_was_all, Some(true));
        assert_eq!(seen.services.keys().collect::<Vec<_>>(), ["order", "payment"]);
        let mut told = seen.services.get("payment").unwrap().clone();
        told.sort_by(|a, b| a.address.cmp(&b.address));
        let addresses: Vec<&str> = told.iter().map(|instance| instance.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:8080", "10.0.0.2:8080"]);
        assert!(told.iter().all(|i| i.weight == 100 && i.enabled && i.healthy), "{told:?}");
        assert_eq!(seen.versions("payment"), ["v1.0.0"]);
    }

    upstream.put("payment", &[registered(1, "v1.1.0"), registered(2, "v1.1.0")]).await;
    following.until("a version changes", |seen| seen.versions("payment") == ["v1.1.0"]).await;
    upstream.put("payment", &[registered(2, "v1.1.0")]).await;
    following.until("an instance leaves", |seen| seen.services.get("payment").map(Vec::len) == Some(1)).await;
    upstream.put("billing", &[registered(4, "v1.0.0")]).await;
    following.until("a service comes", |seen| seen.services.contains_key("billing")).await;
    upstream.remove_service("order").await;
    following.until("a service goes", |seen| !seen.services.contains_key("order")).await;
    following.refresh().await;
    assert_eq!(following.seen().failures, [""; 0]);
    let told = following.seen().clone();

    upstream.break_it().await;
    following.until("a failure is told", |seen| !seen.failures.is_empty()).await;
    let broken = following.seen().clone();
    following.until("it is tried again", |seen| seen.failures.len() > broken.failures.len()).await;
    {
        let seen = following.seen();
        assert_eq!(
            (seen.alls, &seen.services),
            (broken.alls, &told.services),
            "silence is not an empty list"
        );
        assert!(seen.failures.iter().all(|cause| !cause.trim().is_empty()));
    }

    upstream.mend_it().await;
    following
        .until("everything is told again", |seen| seen.alls > broken.alls && seen.services == told.services)
        .await;
    upstream.put("payment", &[registered(5, "v2.0.0")]).await;
    following.until("changes are told again", |seen| seen.versions("payment") == ["v2.0.0"]).await;
    following.end().await;
}
