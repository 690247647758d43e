//! `grey routers`: which routers count, how each stands, and no longer counting one.

use clap::{Args, Subcommand};
use grey_proto::control::{
    DismissRouterRequest, ListRoutersRequest, ListRoutersResponse, RouterState, RouterStatus,
};

use super::Failure;
use super::output::{plain, table};
use super::session::Session;

/// What to do with routers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the routers that count, and how each stands
    List(List),
    /// No longer count a router that fell silent
    ///
    /// Only for one that certainly serves no more: nobody waits for it then. If it is heard of again it counts again.
    Dismiss(Dismiss),
}

/// Which routers.
#[derive(Debug, Default, Args)]
pub struct List {
    /// Also those that left, were dismissed or are gone
    #[arg(long)]
    all: bool,
}

/// Which router, and why.
#[derive(Debug, Args)]
pub struct Dismiss {
    /// The router
    id: String,
    /// Why, kept with the router
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(args) => list(session, args).await,
            Self::Dismiss(args) => dismiss(session, args).await,
        }
    }
}

pub(super) async fn list(session: &Session, args: List) -> Result<(), Failure> {
    let mut client = session.fleet().await?;
    let request = session.request(ListRoutersRequest { former: args.all });
    let response = session.call("list routers", client.list_routers(request)).await?;
    session.show(&response, || list_text(&response))
}

async fn dismiss(session: &Session, args: Dismiss) -> Result<(), Failure> {
    let Dismiss { id, reason } = args;
    let mut client = session.fleet().await?;
    let request = session.request(DismissRouterRequest { id: id.clone(), reason });
    let response = session.call(&format!("dismiss `{id}`"), client.dismiss_router(request)).await?;
    session.show(&response, || plain(&format!("dismissed {id}; nobody waits for it any more")) + "\n")
}

/// How a router stands, in a word.
pub(super) fn word(state: &RouterState) -> &'static str {
    match state.status() {
        RouterStatus::Unspecified => "unknown",
        RouterStatus::Applied => "applied",
        RouterStatus::Behind => "behind",
        RouterStatus::NotCurrent => "not current",
        RouterStatus::Unreachable => "unreachable",
        RouterStatus::Left => "left",
        RouterStatus::Dismissed => "dismissed",
        RouterStatus::Gone => "gone",
    }
}

fn list_text(response: &ListRoutersResponse) -> String {
    let rows = response.routers.iter().map(|router| {
        // One that is silent tells nothing.
        let told = |text: String| if router.epoch == 0 { String::new() } else { text };
        [
            router.id.clone(),
            word(router).to_owned(),
            router.address.clone(),
            router.region.clone(),
            router.zone.clone(),
            told(router.revision.to_string()),
            told(format!("{:016x}", router.digest)),
            router.remark.clone(),
        ]
    });
    let mut text =
        table(["ROUTER", "STATE", "ADDRESS", "REGION", "ZONE", "REVISION", "DIGEST", "REMARK"], rows);
    if !response.fault.is_empty() {
        text.push_str(&plain(&format!("how far they are is not known: {}", response.fault)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_listed_with_their_state() {
        let live = RouterState {
            id: "r1".to_owned(),
            address: "127.0.0.1:7400".to_owned(),
            epoch: 1,
            revision: 17,
            digest: 0xab,
            status: RouterStatus::NotCurrent.into(),
            ..RouterState::default()
        };
        let gone = RouterState {
            id: "r2".to_owned(),
            address: "127.0.0.1:7402".to_owned(),
            status: RouterStatus::Dismissed.into(),
            remark: "dismissed by ann: sold".to_owned(),
            ..RouterState::default()
        };
        let fault = "shared state does not answer".to_owned();
        insta::assert_snapshot!(list_text(&ListRoutersResponse { routers: vec![live, gone], fault }), @"
        ROUTER  STATE        ADDRESS         REGION  ZONE  REVISION  DIGEST            REMARK
        r1      not current  127.0.0.1:7400  -       -     17        00000000000000ab  -
        r2      dismissed    127.0.0.1:7402  -       -     -         -                 dismissed by ann: sold
        how far they are is not known: shared state does not answer
        ");
    }
}
