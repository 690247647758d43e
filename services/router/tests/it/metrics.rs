//! What operators can count.

use crate::world::{World, call};

#[tokio::test]
async fn decisions_are_counted_by_outcome_and_without_tenants() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    for _ in 0..3 {
        router.route(call("beta", "payment")).await.unwrap();
    }
    router.route(call("acme", "payment")).await.unwrap();
    router.route(call("nobody", "payment")).await.unwrap_err();
    let (_, metrics) = router.get("/metrics").await;
    let value = |name: &str, labels: &[&str]| {
        let mut lines =
            metrics.lines().filter(|l| l.starts_with(name) && labels.iter().all(|label| l.contains(label)));
        let line = lines.next().unwrap_or_else(|| panic!("{name} {labels:?} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let decisions = |result: &str, reason: &str| {
        let labels = [format!("result=\"{result}\""), format!("reason=\"{reason}\"")];
        value("grey_router_decisions_total", &labels.each_ref().map(String::as_str))
    };
    assert_eq!(decisions("decided", "pin"), 3.0);
    assert_eq!(decisions("decided", "default"), 1.0);
    assert_eq!(decisions("refused", "unknown_tenant"), 1.0);
    assert_eq!(value("grey_router_table_revision", &[]), 1.0);
    assert_eq!(value("grey_router_table_tenants", &[]), 2.0);
    assert_eq!(value("grey_router_table_services", &[]), 1.0);
    assert_eq!(value("grey_router_table_stale", &[]), 0.0);
    assert_eq!(value("grey_router_table_loads_total", &[]), 1.0);
    assert_eq!(value("grey_router_watchers", &[]), 0.0);
    assert!(value("grey_router_table_age_seconds", &[]) >= 0.0);
    for tenant in ["acme", "beta", "nobody"] {
        assert!(!metrics.contains(tenant), "{tenant} is in {metrics}");
    }
    router.stop().await;
}
