//! Decisions as calls arrive.

use futures::{SinkExt, StreamExt, channel::mpsc};
use grey_core::error::Reason;
use grey_proto::router::{RouteStreamRequest, route_outcome::Outcome};

use crate::world::{World, call, told, within};

#[tokio::test]
async fn answers_come_in_the_order_of_the_messages() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    // Sizes from 0 to 49: an answer holds one outcome for each call of its message.
    let calls = |id: u64| {
        let tenant = if id.is_multiple_of(2) { "acme" } else { "beta" };
        RouteStreamRequest { id, calls: vec![call(tenant, "payment"); usize::try_from(id % 50).unwrap()] }
    };
    let messages = futures::stream::iter(0..2_000).map(calls);
    let mut answers = within(router.client.clone().route_stream(messages)).await.unwrap().into_inner();
    for id in 0..2_000_u64 {
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.id, id);
        assert_eq!(answer.outcomes.len() as u64, id % 50);
        let wanted = if id.is_multiple_of(2) { "v1.0" } else { "v2.0" };
        for outcome in answer.outcomes {
            assert!(matches!(outcome.outcome, Some(Outcome::Decision(d)) if d.version == wanted));
        }
    }
    assert!(within(answers.message()).await.unwrap().is_none(), "the stream ends with its messages");
    router.stop().await;
}

#[tokio::test]
async fn idle_and_busy_streams_end_with_the_drain() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let (mut sender, messages) = mpsc::channel(1);
    let mut idle = within(router.client.clone().route_stream(messages)).await.unwrap().into_inner();
    sender.send(RouteStreamRequest { id: 7, calls: vec![call("acme", "payment")] }).await.unwrap();
    assert_eq!(within(idle.message()).await.unwrap().unwrap().id, 7);
    let endless = futures::stream::repeat(RouteStreamRequest { id: 1, calls: vec![call("acme", "payment")] });
    let mut busy = within(router.client.clone().route_stream(endless)).await.unwrap().into_inner();
    assert_eq!(within(busy.message()).await.unwrap().unwrap().id, 1);

    let client = tokio::spawn(async move {
        loop {
            if let Err(status) = busy.message().await {
                return status;
            }
        }
    });
    router.stop().await;
    assert_eq!(told(within(idle.message()).await).reason, Reason::Unavailable);
    assert_eq!(told(Err::<(), _>(within(client).await.unwrap())).reason, Reason::Unavailable);
}
