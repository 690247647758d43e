//! Many tenants. A hundred thousand take too long without optimisation; the benchmark has them.

use crate::upstream::{Pages, tenants};
use crate::world::{World, counts, did};
use grey_tenant_sync::source::PagingKind;

#[tokio::test]
async fn many_tenants_are_brought_over_and_then_cost_nothing() {
    let world = World::start_with(&[], |config| {
        config.source.paging.kind = PagingKind::Cursor;
        config.source.paging.size = 1_000;
    })
    .await;
    world.upstream.pages(Pages::Cursors);
    let run = world.list(&tenants(0..20_000)).await;
    assert_eq!(counts(&run), did([("created", 20_000)]));
    assert_eq!((world.plane.all().await.len(), world.plane.revision().await), (20_000, 4));

    let mut list = tenants(0..20_100);
    list[12_345]["name"] = "Renamed".into();
    let run = world.list(&list).await;
    assert_eq!(counts(&run), did([("created", 100), ("updated", 1), ("unchanged", 19_999)]));
    assert_eq!(world.plane.revision().await, 5, "one batch");
    assert_eq!(counts(&world.replica.run().await), did([("unchanged", 20_100)]));
    assert_eq!(world.plane.revision().await, 5);
    world.stop().await;
}
