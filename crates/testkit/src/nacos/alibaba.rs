//! Alibaba's own server, in Java; started instead of r-nacos where `NACOS=alibaba` is set.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::binaries;
use crate::nest::Nest;

/// The line that the launcher prints once the server is up.
pub(super) const STARTED: &str = "grey: nacos started";

/// The first user, which every server calls so.
const ADMIN: &str = "nacos";

/// The ports besides HTTP: for clients by gRPC, for other servers by gRPC, for Raft.
pub(super) const OFFSETS: [i32; 3] = [1000, 1001, -1000];

/// The command that starts a server whose files are in `nest`, after writing its configuration.
pub(super) fn command(nest: &Nest, port: u16, auth: bool) -> Result<Command> {
    let home = nest.subdir("data")?;
    let conf = nest.subdir("conf")?;
    let settings = [
        format!("nacos.server.main.port={port}"),
        "nacos.server.contextPath=/nacos".to_owned(),
        "server.address=127.0.0.1".to_owned(),
        "server.tomcat.accesslog.enabled=false".to_owned(),
        "nacos.inetutils.ip-address=127.0.0.1".to_owned(),
        format!("nacos.core.auth.enabled={auth}"),
        format!("nacos.core.auth.admin.enabled={auth}"),
        "nacos.core.auth.console.enabled=false".to_owned(),
        "nacos.core.auth.system.type=nacos".to_owned(),
        // Milliseconds; the embedded database is slow to start on a busy machine.
        "db.pool.config.connectionTimeout=45000".to_owned(),
        "nacos.core.auth.server.identity.key=grey".to_owned(),
        "nacos.core.auth.server.identity.value=grey".to_owned(),
        // Base64 of a text long enough for a key; it guards nothing.
        "nacos.core.auth.plugin.nacos.token.secret.key=R3JleVJvdXRlcidzIHRlc3RzIG5lZWQgc29tZSBrZXk=".to_owned(),
        "spring.autoconfigure.exclude=org.springframework.boot.autoconfigure.jdbc.DataSourceAutoConfiguration"
            .to_owned(),
    ];
    nest.write(&conf.join("application.properties"), settings.join("\n").as_bytes())?;
    let jars = binaries::alibaba_nacos()?;
    let mut command = nest.command(&binaries::find("java")?);
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m", "-Dnacos.standalone=true"]);
    command.arg(format!("-Dnacos.home={}", home.display()));
    command.arg(format!("-Duser.home={}", nest.dir().display()));
    let (conf, jars) = (conf.display(), jars.display());
    command.arg("-cp").arg(format!("{conf}:{jars}:{jars}/first/*:{jars}/lib/*"));
    command.arg("grey.Launcher");
    Ok(command)
}

/// A form to post, and where to.
pub(super) struct Form {
    pub(super) path: &'static str,
    pub(super) body: String,
}

/// What makes the first user, who alone may make others; refused by a server that has one.
pub(super) fn first_user(password: &str) -> [Form; 2] {
    [
        Form { path: "/nacos/v3/auth/user/admin", body: format!("password={password}") },
        Form { path: "/nacos/v1/auth/login", body: format!("username={ADMIN}&password={password}") },
    ]
}

/// What makes a user who may use the public namespace, given the reply to the first user's login.
pub(super) fn user(login: &str, name: &str, password: &str) -> Result<[Form; 3]> {
    let token = login.split("\"accessToken\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.with_context(|| format!("find the token in `{login}`"))?;
    Ok([
        Form {
            path: "/nacos/v3/auth/user",
            body: format!("username={name}&password={password}&accessToken={token}"),
        },
        Form { path: "/nacos/v3/auth/role", body: format!("role=greys&username={name}&accessToken={token}") },
        Form {
            path: "/nacos/v3/auth/permission",
            body: format!("role=greys&resource=public:*:*&action=rw&accessToken={token}"),
        },
    ])
}
