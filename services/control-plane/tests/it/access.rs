//! Who may do what: each role against each method and route.

use grey_core::error::Reason;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{ApplyChangeSetRequest, Change, ProposedChange};
use grey_runtime::access::{Token, TokenHash};
use grey_state::State;
use reqwest::Method;
use tonic::Code;

use crate::bad_input::{methods, send};
use crate::fixture::{Backend, Plane, Store, config, pin, reason, tenant};

const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// The least role of each method, by its place in [`ROLES`].
const METHODS: [(&str, usize); 32] = [
    ("TenantService/GetTenant", 0),
    ("TenantService/ListTenants", 0),
    ("TenantService/PutTenant", 2),
    ("TenantService/DeleteTenant", 2),
    ("TenantService/ObserveSchema", 1),
    ("CatalogService/GetService", 0),
    ("CatalogService/ListServices", 0),
    ("CatalogService/PutService", 2),
    ("CatalogService/DeleteService", 2),
    ("CatalogService/PutVersion", 2),
    ("CatalogService/DeleteVersion", 2),
    ("CatalogService/PutPolicy", 2),
    ("CatalogService/PutOverlay", 2),
    ("CatalogService/DeleteOverlay", 2),
    ("CatalogService/PromoteOverlay", 2),
    ("PinService/ListPins", 0),
    ("PinService/PutPin", 1),
    ("PinService/DeletePin", 1),
    ("PinService/PutPins", 1),
    ("PinService/ApplyChangeSet", 1),
    ("DatabaseService/PutDatabase", 2),
    ("DatabaseService/ListDatabases", 0),
    ("DatabaseService/DeleteDatabase", 2),
    ("DatabaseService/ListSealedDatabases", 1),
    ("DatabaseService/RotateKeys", 2),
    ("HistoryService/ListEvents", 0),
    ("HistoryService/WatchEvents", 0),
    ("HistoryService/VerifyEvents", 0),
    ("HistoryService/ExplainAt", 0),
    ("FleetService/ListRouters", 0),
    ("FleetService/WaitForRouters", 0),
    ("FleetService/DismissRouter", 1),
];

/// The least role of each route.
pub(crate) const ROUTES: [(Method, &str, usize); 43] = [
    (Method::GET, "/api/tenants", 0),
    (Method::GET, "/api/tenants/acme", 0),
    (Method::PUT, "/api/tenants/acme", 2),
    (Method::DELETE, "/api/tenants/acme", 2),
    (Method::GET, "/api/tenants/acme/services", 0),
    (Method::PUT, "/api/tenants/acme/services/payment/version", 1),
    (Method::DELETE, "/api/tenants/acme/services/payment/version", 1),
    (Method::PUT, "/api/tenants/acme/services/payment/schema", 1),
    (Method::PUT, "/api/tenants/acme/services/payment/database", 2),
    (Method::DELETE, "/api/tenants/acme/services/payment/database", 2),
    (Method::GET, "/api/databases?tenant=acme&service=payment", 0),
    (Method::POST, "/api/databases/rotate-keys", 2),
    (Method::POST, "/api/tenants/acme/schema-upgrade", 1),
    (Method::POST, "/api/tenants/acme/services/payment/provision", 2),
    (Method::POST, "/api/grey-router/upgrade-schema/acme/payment:v1.0", 1),
    (Method::GET, "/api/tenants/acme/services/payment/schema-history", 0),
    (Method::GET, "/api/tenants/acme/services/payment/schema-drift", 0),
    (Method::GET, "/api/upgrades?tenant=acme&service=payment", 0),
    (Method::GET, "/api/upgrades/up-1", 0),
    (Method::GET, "/api/upgrades/up-1/events", 0),
    (Method::POST, "/api/upgrades/up-1/cancel", 1),
    (Method::GET, "/api/services", 0),
    (Method::GET, "/api/services/payment", 0),
    (Method::PUT, "/api/services/payment", 2),
    (Method::DELETE, "/api/services/payment", 2),
    (Method::PUT, "/api/services/payment/versions/1.0", 2),
    (Method::DELETE, "/api/services/payment/versions/1.0", 2),
    (Method::GET, "/api/services/payment/policy", 0),
    (Method::PUT, "/api/services/payment/policy", 2),
    (Method::PUT, "/api/services/payment/overlays/c", 2),
    (Method::DELETE, "/api/services/payment/overlays/c", 2),
    (Method::POST, "/api/services/payment/overlays/c/promotion", 2),
    (Method::GET, "/api/pins?tenant=acme", 0),
    (Method::POST, "/api/pins", 1),
    (Method::POST, "/api/change-sets", 1),
    (Method::GET, "/api/events", 0),
    (Method::GET, "/api/events/verify", 0),
    (Method::POST, "/api/explain", 0),
    (Method::GET, "/api/routers", 0),
    (Method::POST, "/api/routers/wait", 0),
    (Method::DELETE, "/api/routers/r1", 1),
    (Method::HEAD, "/api/tenants", 0),
    (Method::GET, "/api/events?newestFirst=true", 0),
];

async fn guarded() -> Plane {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.access.tokens = ROLES
        .iter()
        .map(|role| Token {
            name: format!("the-{role}"),
            role: (*role).to_owned(),
            sha256: TokenHash::of(&format!("secret-{role}")),
        })
        .collect();
    Plane::start_with(store, config, State::memory()).await
}

#[tokio::test]
async fn each_role_may_call_what_the_table_says() {
    let mut plane = guarded().await;
    assert_eq!(methods(), METHODS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    for (place, role) in ROLES.iter().enumerate() {
        plane.set_token(Some(&format!("secret-{role}")));
        for (method, least) in METHODS {
            let refused = send(&plane, method, String::new()).await.err();
            let denied = refused.is_some_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(denied, place < least, "{role} {method}");
        }
        for (method, path, least) in ROUTES {
            let request = plane.http.request(method.clone(), format!("{}{path}", plane.base));
            let answer = request.bearer_auth(format!("secret-{role}")).send().await.unwrap();
            assert_eq!(answer.status() == 403, place < least, "{role} {method} {path}");
            assert_ne!(answer.status(), 401, "{role} {method} {path}");
        }
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_token() {
    let mut plane = guarded().await;
    for token in [None, Some("wrong"), Some("secret-Admin"), Some("the-admin")] {
        plane.set_token(token);
        // Many wrong tokens would be answered ever later.
        let (methods, routes) = if token.is_none() { (METHODS.len(), ROUTES.len()) } else { (1, 3) };
        for (method, _) in METHODS.into_iter().take(methods) {
            // Refused before it is read, so a message that is larger than any is refused alike.
            for size in [0, 2 << 20] {
                let refused = send(&plane, method, "x".repeat(size)).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated, "{token:?} {method} {size}");
            }
        }
        for (method, path, _) in ROUTES.into_iter().take(routes) {
            let request = plane.http.request(method.clone(), format!("{}{path}", plane.base));
            let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{token:?} {method} {path}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        }
    }
    // What operators and orchestrators look at needs no token.
    for path in ["/health/live", "/metrics"] {
        assert_eq!(plane.http.get(format!("{}{path}", plane.base)).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn operators_change_pins_and_schemas_only() {
    let mut plane = guarded().await;
    plane.set_token(Some("secret-admin"));
    plane.acme().await;
    let before = plane.revision().await;
    plane.set_token(Some("secret-operator"));
    let set = |kinds: Vec<Kind>| {
        let propose =
            |kind| ProposedChange { change: Some(Change { change: Some(kind) }), expected_revision: None };
        ApplyChangeSetRequest { changes: kinds.into_iter().map(propose).collect(), write: None }
    };
    let mixed = set(vec![Kind::PinPut(pin("acme", "payment", "1.0")), Kind::TenantPut(tenant("beta"))]);
    assert_eq!(reason(plane.pins().apply_change_set(mixed).await), Reason::Denied);
    assert_eq!(plane.revision().await, before);
    let pins = set(vec![Kind::PinPut(pin("acme", "payment", "1.0"))]);
    plane.pins().apply_change_set(pins).await.unwrap();
    let principals = plane.events().await.into_iter().map(|event| event.principal.unwrap());
    let principals: Vec<_> =
        principals.map(|principal| format!("{} {}", principal.id, principal.role)).collect();
    let [admin, operator] = ["the-admin admin", "the-operator operator"];
    assert_eq!(principals, [admin, admin, admin, operator]);
}

#[tokio::test]
async fn an_open_control_plane_does_not_leave_the_machine() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.http.listen = "0.0.0.0:0".parse().unwrap();
    let telemetry = grey_runtime::Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
    let refused = grey_control_plane::App::bind(config, State::memory(), telemetry).await.err().unwrap();
    assert!(refused.to_string().contains("tokens"), "{refused}");
}
