//! Where no token is needed, pages of others cannot make a browser ask.

use grey_core::error::Reason;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::status::from_status;
use tonic::transport::Endpoint;

use crate::world::{DEADLINE, World, call, within};

#[tokio::test]
async fn pages_of_others_are_refused_on_the_port_for_decisions() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let own = &*router.grpc.to_string();
    let ask = async |authority: &str, origins: &[&str]| {
        let endpoint = Endpoint::from_shared(format!("http://{}", router.grpc)).unwrap().timeout(DEADLINE);
        let endpoint = endpoint.origin(format!("http://{authority}").parse().unwrap());
        let mut client = RouterServiceClient::new(within(endpoint.connect()).await.unwrap());
        let mut answers = Vec::new();
        // The second one comes to a name that the connection knows.
        for with in [&[][..], origins] {
            let mut request = tonic::Request::new(call("acme", "payment"));
            for origin in with {
                request.metadata_mut().append("origin", origin.parse().unwrap());
            }
            let answer = within(client.route(request)).await;
            answers.push(answer.map(drop).map_err(|refused| from_status(&refused)));
        }
        answers.pop().unwrap()
    };
    let here = &*format!("http://{own}");
    for (authority, origins) in [(own, &[][..]), ("localhost", &[]), (own, &[here])] {
        assert_eq!(ask(authority, origins).await, Ok(()), "{authority} {origins:?}");
    }
    let evil = "http://evil.example";
    for (authority, origins, field) in [
        ("evil.example", &[][..], "host"),
        (own, &[evil], "origin"),
        (own, &[here, evil], "origin"),
        (own, &[here, here], "origin"),
    ] {
        let refused = ask(authority, origins).await.unwrap_err();
        assert_eq!(
            (refused.reason, refused.get("field")),
            (Reason::Denied, Some(field)),
            "{authority} {origins:?}"
        );
    }
    router.stop().await;
}
