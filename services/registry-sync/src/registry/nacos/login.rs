//! Logs in to Nacos.
//!
//! The library's own login writes the password to its log, keeps a token that the server no longer knows for minutes, and
//! cannot be stopped. Here the library asks for the token only, and everything else is done by who makes the calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use grey_runtime::Secret;
use nacos_sdk::api::plugin::{AuthContext, AuthPlugin, LoginIdentityContext, RequestResource};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::detail::http;
use super::fault::Fault;
use super::options::Options;

/// Where servers of version 1 and 2 log in, then those of version 3 that no longer do so there.
const PATHS: [&str; 2] = ["/nacos/v1/auth/login", "/nacos/v3/auth/user/login"];

/// The name under which a call carries the token.
const TOKEN: &str = "accessToken";

/// Longest time in seconds for which a token is used, whatever the server says.
const MAX_GOOD_FOR: u64 = 86_400;

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
    /// Held while somebody logs in: a server allows so many logins only.
    turn: tokio::sync::Mutex<()>,
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
        Ok(Some(Arc::new(Self {
            http: http(options.call_timeout)?,
            servers: options.servers.clone(),
            username: options.username.clone(),
            password: options.password.clone(),
            token: Mutex::new(None),
            turn: tokio::sync::Mutex::default(),
        })))
    }

    /// Logs in unless there is a token that is good for a while. Any server of the cluster will do.
    pub(super) async fn ensure(&self) -> Result<(), Fault> {
        self.replace(|token| Instant::now() >= token.stale_at).await
    }

    /// Logs in again, since a call with the token `refused` was; unless somebody has done so since.
    pub(super) async fn renew(&self, refused: &str) -> Result<(), Fault> {
        self.replace(|token| token.value.expose() == refused).await
    }

    /// The present token; empty if there is none.
    pub(super) fn token(&self) -> String {
        self.held().as_ref().map(|token| token.value.expose().to_owned()).unwrap_or_default()
    }

    /// Logs in if there is no token, or one that is `unfit`.
    async fn replace(&self, unfit: impl Fn(&Token) -> bool) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        if self.held().as_ref().is_some_and(|token| !unfit(token)) {
            return Ok(());
        }
        let mut cause = String::new();
        for server in &self.servers {
            match self.ask(server).await {
                Ok(granted) => {
                    // Renewed at half its life, so that no call carries one that has just expired.
                    let good_for = Duration::from_secs((granted.token_ttl / 2).min(MAX_GOOD_FOR));
                    let token = Token {
                        value: Secret::new(granted.access_token),
                        stale_at: Instant::now() + good_for,
                    };
                    *self.held() = Some(token);
                    return Ok(());
                }
                Err(refusal) => cause = refusal,
            }
        }
        Err(Fault::Login { cause })
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

    fn held(&self) -> MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuthPlugin for Login {
    /// Called by the library from time to time, for as long as the process runs.
    async fn login(&self, _: Arc<Vec<String>>, _: Arc<AuthContext>) {}

    fn get_login_identity(&self, _: RequestResource) -> LoginIdentityContext {
        let identity = LoginIdentityContext::default();
        match self.held().as_ref() {
            Some(token) => identity.add_context(TOKEN, token.value.expose()),
            None => identity,
        }
    }
}

/// What went wrong, without the address, which the log has anyway.
pub(super) fn words(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives out tokens `t1`, `t2` and so on, and how many it gave.
    async fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, given) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&given);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                drop(stream.read(&mut [0; 4096]).await);
                let body = format!("{{\"accessToken\":\"t{number}\",\"tokenTtl\":600}}");
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        (address.to_string(), given)
    }

    #[tokio::test]
    async fn however_many_calls_are_refused_there_is_one_login() {
        let (server, given) = server().await;
        let mut options = Options::new(vec![server]);
        (options.username, options.password) = ("grey".to_owned(), Secret::new("secret"));
        let login = Login::new(&options).unwrap().unwrap();
        join_all((0..16).map(|_| login.ensure())).await.into_iter().for_each(Result::unwrap);
        assert_eq!((login.token().as_str(), given.load(Ordering::Relaxed)), ("t1", 1));
        join_all((0..16).map(|_| login.renew("t1"))).await.into_iter().for_each(Result::unwrap);
        assert_eq!((login.token().as_str(), given.load(Ordering::Relaxed)), ("t2", 2));
    }
}
