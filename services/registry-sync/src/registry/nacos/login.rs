//! Logs in to Nacos.
//!
//! The library's own login writes the password to its log, keeps a token that the server no longer knows for minutes, and
//! cannot be stopped. Here the library asks for the token only, and everything else is done by who makes the calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use grey_runtime::{Secret, tls};
use nacos_sdk::api::plugin::{AuthContext, AuthPlugin, LoginIdentityContext, RequestResource};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::fault::Fault;
use super::options::Options;

/// Where servers of version 1 and 2 log in, then those of version 3 that no longer do so there.
const PATHS: [&str; 2] = ["/nacos/v1/auth/login", "/nacos/v3/auth/user/login"];

/// The name under which a call carries the token.
const TOKEN: &str = "accessToken";

/// Most of a refusal that is told.
const MAX_REFUSAL: usize = 200;

/// A user's login, shared by all connections to one cluster.
#[derive(Debug)]
pub(super) struct Login {
    http: reqwest::Client,
    servers: Vec<String>,
    username: String,
    password: Secret,
    token: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    value: Secret,
    stale_at: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    access_token: String,
    /// Seconds.
    token_ttl: u64,
}

impl Login {
    /// The login that `options` ask for, if any.
    pub(super) fn new(options: &Options) -> Result<Option<Arc<Self>>, Fault> {
        if options.username.is_empty() {
            return Ok(None);
        }
        // The client wants to know how to encrypt, even where nothing is encrypted.
        tls::install_provider();
        let http = reqwest::Client::builder().timeout(options.call_timeout).no_proxy().build();
        Ok(Some(Arc::new(Self {
            http: http.map_err(|error| Fault::Login { cause: words(&error) })?,
            servers: options.servers.clone(),
            username: options.username.clone(),
            password: options.password.clone(),
            token: Mutex::new(None),
        })))
    }

    /// Logs in unless there is a token that is good for a while. Any server of the cluster will do.
    pub(super) async fn ensure(&self) -> Result<(), Fault> {
        if self.token().as_ref().is_some_and(|token| Instant::now() < token.stale_at) {
            return Ok(());
        }
        let mut cause = String::new();
        for server in &self.servers {
            match self.ask(server).await {
                Ok(granted) => {
                    // Renewed at half its life, so that no call carries one that has just expired.
                    let good_for = Duration::from_secs(granted.token_ttl / 2);
                    let token = Token {
                        value: Secret::new(granted.access_token),
                        stale_at: Instant::now() + good_for,
                    };
                    *self.token() = Some(token);
                    return Ok(());
                }
                Err(refusal) => cause = refusal,
            }
        }
        Err(Fault::Login { cause })
    }

    /// Drops the token, since a call with it was refused.
    pub(super) fn forget(&self) {
        *self.token() = None;
    }

    async fn ask(&self, server: &str) -> Result<Granted, String> {
        let form = [("username", self.username.as_str()), ("password", self.password.expose())];
        let mut refusal = String::new();
        for path in PATHS {
            let request = self.http.post(format!("http://{server}{path}")).form(&form);
            let response = request.send().await.map_err(|error| words(&error))?;
            let status = response.status();
            let body = response.text().await.map_err(|error| words(&error))?;
            if status.is_success() {
                return serde_json::from_str(&body).map_err(|_| "the answer holds no token".to_owned());
            }
            refusal = format!("{} {}", status.as_u16(), body.chars().take(MAX_REFUSAL).collect::<String>());
            if !matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NOT_IMPLEMENTED) {
                break;
            }
        }
        Err(refusal)
    }

    fn token(&self) -> MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuthPlugin for Login {
    /// Called by the library from time to time, for as long as the process runs.
    async fn login(&self, _: Arc<Vec<String>>, _: Arc<AuthContext>) {}

    fn get_login_identity(&self, _: RequestResource) -> LoginIdentityContext {
        let identity = LoginIdentityContext::default();
        match self.token().as_ref() {
            Some(token) => identity.add_context(TOKEN, token.value.expose()),
            None => identity,
        }
    }
}

/// What went wrong, without the address, which the log has anyway.
fn words(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
