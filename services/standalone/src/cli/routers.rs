//! `grey routers`: live routers and how far they are.

use grey_proto::control::{ListRoutersRequest, ListRoutersResponse};

use super::Failure;
use super::output::table;
use super::session::Session;

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let mut client = session.fleet().await?;
    let request = session.request(ListRoutersRequest {});
    let response = session.call("list routers", client.list_routers(request)).await?;
    session.show(&response, || list_text(&response))
}

fn list_text(response: &ListRoutersResponse) -> String {
    let rows = response.routers.iter().map(|router| {
        let stale = if router.stale { "yes" } else { "" };
        [
            router.id.clone(),
            router.address.clone(),
            router.region.clone(),
            router.zone.clone(),
            router.revision.to_string(),
            format!("{:016x}", router.digest),
            stale.to_owned(),
        ]
    });
    table(["ROUTER", "ADDRESS", "REGION", "ZONE", "REVISION", "DIGEST", "STALE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::control::RouterState;

    #[test]
    fn routers_are_listed_with_their_revision() {
        let router = RouterState {
            id: "r1".to_owned(),
            address: "127.0.0.1:7400".to_owned(),
            revision: 17,
            digest: 0xab,
            stale: true,
            ..RouterState::default()
        };
        insta::assert_snapshot!(list_text(&ListRoutersResponse { routers: vec![router] }), @"
        ROUTER  ADDRESS         REGION  ZONE  REVISION  DIGEST            STALE
        r1      127.0.0.1:7400  -       -     17        00000000000000ab  yes
        ");
    }
}
