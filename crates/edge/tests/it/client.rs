//! Clients against the ports of this crate.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_edge::client::{Options, is_transient};
use grey_edge::on_behalf_of;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::{DismissRouterRequest, ListRoutersRequest, WaitForRoutersRequest};
use grey_proto::status::{ApiError, from_status};
use grey_runtime::server::http::Limits;
use grey_runtime::tls::ClientOptions;
use tokio::net::{TcpListener, TcpSocket};
use tonic::{Code, Status};

use crate::authority::Authority;
use crate::service::{TOKEN, ask, client, options, start, start_with};

/// What is said where there is no answer.
async fn unheard(options: &Options) -> String {
    let error = ask(options).await.unwrap_err();
    assert_eq!(error.reason, Reason::Unavailable, "{error}");
    assert!(is_transient(&error) && error.message.starts_with("the fleet does not answer: "), "{error}");
    error.message
}

/// What the peer says to a call that waits.
async fn wait(options: &Options, revision: u64) -> ApiError {
    let client = client(options);
    let mut fleet = FleetServiceClient::new(client.transport());
    let request = WaitForRoutersRequest { revision, timeout: None };
    client.call(fleet.wait_for_routers(request)).await.unwrap_err()
}

#[tokio::test]
async fn token_is_sent_with_every_call() {
    let url = format!("http://{}", start(None).await);
    assert_eq!(ask(&options(&url, TOKEN, None)).await.unwrap(), "ann");
    for token in ["wrong", ""] {
        let refused = ask(&options(&url, token, None)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Unauthenticated, "{refused}");
        assert!(!is_transient(&refused));
        // It is no fault of those on whose behalf was asked.
        let told = client(&options(&url, token, None)).for_callers(refused);
        assert_eq!(told.reason, Reason::Unavailable, "{told}");
    }
}

#[tokio::test]
async fn refusals_are_told_as_the_peer_told_them() {
    let url = format!("http://{}", start(None).await);
    let options = options(&url, TOKEN, None);
    let refused = wait(&options, 0).await;
    assert_eq!(refused, ApiError::new(Reason::InUse, "not now").with("by", "someone"));
    assert_eq!(client(&options).for_callers(refused.clone()), refused);
}

#[tokio::test]
async fn what_an_asker_may_not_do_is_told_to_the_asker() {
    let url = format!("http://{}", start(None).await);
    let options = options(&url, TOKEN, None);
    let client = client(&options);
    let ask = async |role: &str| {
        let principal = Principal { id: "bob".to_owned(), role: role.to_owned(), via: String::new() };
        let mut fleet = FleetServiceClient::new(client.transport());
        let request = on_behalf_of(&principal, ListRoutersRequest::default());
        client.call(fleet.list_routers(request)).await.map(|answer| answer.routers[0].id.clone())
    };
    assert_eq!(ask("admin").await.unwrap(), "bob via ann");
    let refused = ask("operator").await.unwrap_err();
    assert_eq!((refused.reason, refused.get("principal")), (Reason::Denied, Some("bob")));
    assert_eq!(client.for_callers(refused.clone()), refused);
    let unusable = ask("root").await.unwrap_err();
    assert_eq!(unusable.reason, Reason::InvalidArgument, "{unusable}");
}

#[tokio::test]
async fn call_without_an_answer_ends_at_the_deadline() {
    let authority = Authority::new();
    let url = format!("http://{}", start(None).await);
    let timeout = Duration::from_millis(100);
    let error = wait(&Options { timeout, ..options(&url, TOKEN, None) }, 1).await;
    assert_eq!(error.reason, Reason::Unavailable);
    assert!(error.message.contains("no answer within 100ms; what was asked for may"), "{error}");
    // Connections are taken, and nothing comes of them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    for (url, tls) in
        [(format!("http://{addr}"), None), (format!("https://{addr}"), Some(authority.client()))]
    {
        unheard(&Options { timeout, ..options(&url, TOKEN, tls.clone()) }).await;
    }
    // A handshake has the deadline of the connection that it is part of.
    let tls = Some(authority.client());
    let options = Options { connect_timeout: timeout, ..options(&format!("https://{addr}"), TOKEN, tls) };
    unheard(&options).await;
}

#[tokio::test]
async fn peer_that_is_gone_is_told_of_with_the_cause() {
    // Bound without listening: it refuses, and the kernel gives its port to nobody else.
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = gone.local_addr().unwrap();
    let said = unheard(&options(&format!("http://{addr}"), TOKEN, None)).await;
    assert!(said.contains("Connection refused") && !said.contains("may have been done"), "{said}");
}

#[tokio::test]
async fn server_of_the_trusted_authority_is_called_encrypted() {
    let authority = Authority::new();
    let addr = start(Some(&authority.server("127.0.0.1"))).await;
    let url = format!("https://{addr}");
    assert_eq!(ask(&options(&url, TOKEN, Some(authority.client()))).await.unwrap(), "ann");
    unheard(&options(&format!("http://{addr}"), TOKEN, None)).await;
}

#[tokio::test]
async fn server_that_is_not_trusted_is_not_called_and_the_setting_to_change_is_named() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let addr = start(Some(&ours.server("grey.internal"))).await;
    let url = format!("https://{addr}");
    let said = unheard(&options(&url, TOKEN, Some(theirs.client()))).await;
    assert!(said.contains("set peer.tls.ca_file to the authority"), "{said}");
    let said = unheard(&options(&url, TOKEN, Some(ours.client()))).await;
    assert!(said.contains("set peer.tls.domain to a name"), "{said}");
    let named = ClientOptions { domain: Some("grey.internal".to_owned()), ..ours.client() };
    assert_eq!(ask(&options(&url, TOKEN, Some(named))).await.unwrap(), "ann");
    let plain = format!("https://{}", start(None).await);
    let said = unheard(&options(&plain, TOKEN, Some(ours.client()))).await;
    assert!(said.contains("peer.url must begin with http://"), "{said}");
}

#[tokio::test]
async fn certificate_is_shown_where_the_server_demands_one() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let url = format!("https://{}", start(Some(&ours.strict_server("127.0.0.1"))).await);
    assert_eq!(ask(&options(&url, TOKEN, Some(ours.client_with_certificate()))).await.unwrap(), "ann");
    let foreign = ClientOptions { ca_file: ours.client().ca_file, ..theirs.client_with_certificate() };
    for unknown in [ours.client(), foreign] {
        let said = unheard(&options(&url, TOKEN, Some(unknown))).await;
        assert!(said.contains("set peer.tls.cert_file and peer.tls.key_file"), "{said}");
    }
}

/// What is logged while a client is made.
fn logged(options: &Options) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || drop(client(options)));
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn token_in_clear_to_another_machine_is_warned_of_once() {
    grey_runtime::tls::install_provider();
    let log = logged(&options("http://plane.example:7410", TOKEN, None));
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains("setting=\"peer.url\"") && !log.contains(TOKEN), "{log}");
    let authority = Authority::new();
    let tls = Some(authority.client());
    for quiet in [
        options("http://127.0.0.1:7410", TOKEN, None),
        options("http://plane.example:7410", "", None),
        options("https://plane.example:7410", TOKEN, tls),
    ] {
        assert_eq!(logged(&quiet), "");
    }
}

#[tokio::test]
async fn requests_beyond_the_budget_are_refused_with_their_reason() {
    let limits = Limits { body_budget_bytes: 4_000, ..Limits::default() };
    let url = format!("http://{}", start_with(None, limits).await);
    let client = client(&options(&url, TOKEN, None));
    let mut fleet = FleetServiceClient::new(client.transport());
    let request = DismissRouterRequest { id: "x".repeat(1_001), reason: String::new() };
    let refused = fleet.dismiss_router(request).await.unwrap_err();
    assert!(!refused.details().is_empty(), "{refused}");
    assert_eq!(from_status(&refused).reason, Reason::RateLimited);
    assert_eq!(ask(&options(&url, TOKEN, None)).await.unwrap(), "ann");
}

#[tokio::test]
async fn many_wrong_tokens_are_refused_late_or_for_their_number_and_right_ones_never() {
    let url = format!("http://{}", start(None).await);
    // Many, since HTTP/2 itself ends a connection on which many bodies are not read.
    let wrong = [(); 40].map(|()| client(&options(&url, "wrong", None)));
    let mut refused: FuturesUnordered<_> = (0..400)
        .map(|at| {
            let mut fleet = FleetServiceClient::new(wrong[at % 40].transport());
            async move { fleet.list_routers(ListRoutersRequest::default()).await.unwrap_err() }
        })
        .collect();
    let is_for_the_number = |status: &Status| from_status(status).reason == Reason::RateLimited;
    let mut of_the_token = 0;
    loop {
        let status = refused.next().await.unwrap();
        if is_for_the_number(&status) {
            break;
        }
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        of_the_token += 1;
    }
    assert!(of_the_token >= 10, "the first ones are told why");
    assert_eq!(ask(&options(&url, TOKEN, None)).await.unwrap(), "ann");
}
