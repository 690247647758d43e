//! Calls that one service makes for somebody else: judged by whoever is the lower, and told with both.

use grey_proto::control::Principal;
use grey_runtime::access::{Token, TokenHash};
use grey_state::State;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::fixture::{Backend, Plane, Store, config};

const PATH: &str = "/api/tenants/acme";

#[tokio::test]
async fn what_is_asked_for_somebody_is_judged_and_told_as_theirs() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    for role in ["operator", "admin"] {
        let token = Token { name: format!("portal-{role}"), role: role.into(), sha256: TokenHash::of(role) };
        config.access.tokens.push(token);
    }
    let mut plane = Plane::start_with(store, config, State::memory()).await;
    let put = async |token: &str, headers: &[(&str, &str)]| {
        let bearer = format!("Bearer {token}");
        let headers = [&[("authorization", bearer.as_str())][..], headers].concat();
        let (code, answer) = plane.call_if(Method::PUT, PATH, json!({}), &headers).await;
        (code, answer["error"]["metadata"].clone())
    };
    let asking = |role| [("x-grey-principal", "J%C3%B6rg"), ("x-grey-principal-role", role)];
    // Neither does a token gain by whom it asks for, nor whoever it asks for by the token.
    let (code, told) = put("admin", &asking("operator")).await;
    assert_eq!((code, told["principal"].as_str()), (StatusCode::FORBIDDEN, Some("Jörg")));
    let (code, told) = put("operator", &asking("admin")).await;
    assert_eq!((code, told["principal"].as_str()), (StatusCode::FORBIDDEN, None));
    for half in [&asking("admin")[..1], &asking("admin")[1..], &asking("root")[..]] {
        let (code, told) = put("admin", half).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{half:?}");
        assert!(told["field"].as_str().unwrap().starts_with("x-grey-principal"), "{told}");
    }
    assert_eq!(put("admin", &asking("admin")).await.0, StatusCode::OK);
    plane.set_token(Some("admin"));
    let [event] = plane.events().await.try_into().unwrap();
    let (id, role, via) = ("Jörg".to_owned(), "admin".to_owned(), "portal-admin".to_owned());
    assert_eq!(event.principal, Some(Principal { id, role, via }));
}
