//! A private Nacos server: r-nacos, which speaks the gRPC protocol of Nacos 2.x, or Alibaba's own.

mod alibaba;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binaries;
use crate::eventually::retry;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};
use crate::server::{Server, not_running};

/// The line that says that the server is about to listen.
const STARTED: &str = "rnacos started";

/// Clients expect gRPC this much above the HTTP port.
const GRPC_OFFSET: i32 = 1000;

/// How many ports are looked at for one whose gRPC port is free too.
const PORT_TRIES: usize = 100;

/// Longest wait for a server that listens, and knows its user.
const DEADLINE: Duration = Duration::from_secs(60);

/// A private Nacos server without its console; gone when dropped. It is r-nacos, unless the environment says
/// `NACOS=alibaba`.
///
/// Unlike the database servers it runs as the test's own user, in whose cache its program may be.
#[derive(Debug)]
pub struct Nacos {
    // The order is that of the end: the process, then its directory.
    server: Mutex<Option<Server>>,
    nest: Nest,
    http: ReservedPort,
    grpc: ReservedPort,
    _others: Vec<ReservedPort>,
    make: Make,
    options: NacosBuilder,
}

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    Rnacos,
    Alibaba,
}

impl Make {
    fn chosen() -> Self {
        match std::env::var("NACOS").as_deref() {
            Ok("alibaba") => Self::Alibaba,
            _ => Self::Rnacos,
        }
    }
}

/// Options of a [`Nacos`] server.
#[derive(Clone, Debug, Default)]
pub struct NacosBuilder {
    user: Option<(String, String)>,
    variables: Vec<(String, String)>,
}

impl NacosBuilder {
    /// Requires a login of every client, and knows one user; letters and digits only, so that both fit into a form.
    #[must_use]
    pub fn auth(mut self, username: &str, password: &str) -> Self {
        self.user = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// Sets an environment variable of the server, such as `RNACOS_NAMING_HEALTH_TIMEOUT_SECOND`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Fails when `rnacos` is not installed or is not ready within a minute.
    pub async fn start(self) -> Result<Nacos> {
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        let fits = self.user.as_ref().is_none_or(|(name, password)| plain(name) && plain(password));
        ensure!(fits, "use a nacos user and password of letters and digits only");
        with_fresh_ports("nacos", || Nacos::try_start(self.clone())).await
    }
}

impl Nacos {
    /// Starts a server that lets everybody in.
    ///
    /// # Errors
    /// Fails when `rnacos` is not installed or is not ready within a minute.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns the default options.
    pub fn builder() -> NacosBuilder {
        NacosBuilder::default()
    }

    async fn try_start(options: NacosBuilder) -> Result<Self> {
        let nest = Nest::new("nacos")?;
        let make = Make::chosen();
        let offsets = if make == Make::Alibaba { &alibaba::OFFSETS[..] } else { &[GRPC_OFFSET] };
        let (http, mut others) = ports(offsets)?;
        let grpc = others.remove(0);
        let nacos = Self { server: Mutex::new(None), nest, http, grpc, _others: others, make, options };
        nacos.run().await?;
        Ok(nacos)
    }

    /// Returns the address to configure clients with, which stays the same through every restart. It speaks HTTP; clients
    /// find gRPC 1000 ports above.
    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Returns the address that speaks gRPC.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.addr()
    }

    /// Returns the process id, or nothing while the server is killed.
    pub fn id(&self) -> Option<u32> {
        self.server().as_ref().map(Server::id)
    }

    /// Kills the server with `SIGKILL`; both ports refuse connections when this returns.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn kill9(&self) -> Result<()> {
        self.server().take().map_or(Ok(()), |mut server| server.kill9())
    }

    /// Kills the server if it runs and starts it again with the data on its disk: persistent instances, not the ephemeral
    /// ones, which their clients register again.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart(&self) -> Result<()> {
        self.kill9()?;
        self.run().await.context("restart nacos")
    }

    /// Kills the server if it runs and starts it again on the same ports without any data.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart_empty(&self) -> Result<()> {
        self.kill9()?;
        let data = self.nest.dir().join("data");
        fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
        self.run().await.context("restart nacos without data")
    }

    /// Freezes the server: connections stay open, nothing answers.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn pause(&self) -> Result<()> {
        self.server().as_ref().ok_or_else(not_running)?.pause()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn resume(&self) -> Result<()> {
        self.server().as_ref().ok_or_else(not_running)?.resume()
    }

    async fn run(&self) -> Result<()> {
        let (mut command, started) = match self.make {
            Make::Rnacos => (self.rnacos()?, STARTED),
            Make::Alibaba => (
                alibaba::command(&self.nest, self.http.number(), self.options.user.is_some())?,
                alibaba::STARTED,
            ),
        };
        command.envs(self.options.variables.iter().map(|(name, value)| (name, value)));
        let server = Server::start(command, &self.nest.dir().join("server.log"), started).await?;
        *self.server() = Some(server);
        if let (Make::Alibaba, Some((name, password))) = (self.make, &self.options.user) {
            retry(DEADLINE, "make a user", || self.make_user(name, password)).await?;
        }
        // It says so before it listens, and a while before it knows its user.
        retry(DEADLINE, "listen", || self.look()).await
    }

    /// Makes the first user and with it the wanted one; a new user can log in only after a while.
    async fn make_user(&self, name: &str, password: &str) -> Result<()> {
        let mut login = String::new();
        for form in alibaba::first_user(password) {
            login = self.post(form.path, &form.body).await?;
        }
        for form in alibaba::user(&login, name, password)? {
            self.post(form.path, &form.body).await?;
        }
        Ok(())
    }

    fn rnacos(&self) -> Result<Command> {
        let data = self.nest.subdir("data")?;
        let mut command = self.nest.command(&binaries::rnacos()?);
        command.env_clear().env("HOME", self.nest.dir()).env("TMPDIR", self.nest.dir());
        command
            .env("RUST_LOG", "warn")
            .env("RNACOS_HTTP_PORT", self.http.number().to_string())
            .env("RNACOS_GRPC_PORT", self.grpc.number().to_string())
            .env("RNACOS_HTTP_CONSOLE_PORT", "0")
            .env("RNACOS_HTTP_WORKERS", "1")
            .env("RNACOS_SDK_HOST", "127.0.0.1")
            .env("RNACOS_DATA_DIR", data)
            // Otherwise the metadata that an address registered first stays for good, and no version ever changes.
            .env("RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE", "false")
            .env("RNACOS_API_LOGIN_ONE_MINUTE_LIMIT", "100000");
        if let Some((name, password)) = &self.options.user {
            command
                .env("RNACOS_ENABLE_OPEN_API_AUTH", "true")
                .env("RNACOS_INIT_ADMIN_USERNAME", name)
                .env("RNACOS_INIT_ADMIN_PASSWORD", password);
        }
        Ok(command)
    }

    /// Whether both ports answer and the user, if there is one, can log in.
    async fn look(&self) -> Result<()> {
        TcpStream::connect(self.grpc_addr()).await.context("connect to gRPC")?;
        let form = self
            .options
            .user
            .as_ref()
            .map_or_else(String::new, |(name, password)| format!("username={name}&password={password}"));
        let reply = self.post("/nacos/v1/auth/login", &form).await?;
        let status = reply.split(' ').nth(1).ok_or_else(|| anyhow!("read the reply `{reply}`"))?;
        ensure!(self.options.user.is_none() || status == "200", "log in: {reply}");
        Ok(())
    }

    async fn post(&self, path: &str, form: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.addr()).await.context("connect to HTTP")?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: nacos\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok(reply)
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port and those at `offsets` from it.
fn ports(offsets: &[i32]) -> Result<(ReservedPort, Vec<ReservedPort>)> {
    // Ports that do not serve are kept until the end, or the kernel might offer the same one again.
    let mut unfit = Vec::new();
    for _ in 0..PORT_TRIES {
        let port = ReservedPort::any()?;
        let reserve = |offset: &i32| {
            let number = u16::try_from(i32::from(port.number()) + offset).ok()?;
            ReservedPort::exactly(number).ok()
        };
        match offsets.iter().map(reserve).collect() {
            Some(others) => return Ok((port, others)),
            None => unfit.push(port),
        }
    }
    anyhow::bail!("find a port with free ones at {offsets:?}, among {}", unfit.len())
}
