//! Tenants' databases that are reached over TLS: the migrator, its backups and its tools.

use crate::external::{fill_orders, pt, step};
use crate::run_world::{LONG, World, job, lenient, scripts, target, timeouts};
use grey_core::error::Reason;
use grey_schema_migrator::backup;
use grey_schema_migrator::external;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan;
use grey_schema_migrator::run::{Goal, Job, Migration, Outcome, Progress, Tooling, migrate};
use grey_schema_migrator::tenant::{Connection, Error, Stop, Target};
use grey_testkit::{Authority, Identity, MariaDb, Postgres};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Parameters of a URL that insist on a server with a certificate of this authority, for its name.
fn verified(dialect: Dialect, authority: &Path) -> String {
    let authority = authority.display();
    match dialect {
        Dialect::Postgres => format!("?sslmode=verify-full&sslrootcert={authority}"),
        _ => format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={authority}"),
    }
}

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

/// Migrates a fresh database after a backup of it; gives the backup's size.
async fn migrated(target: &Target) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let backups = Some(backup::Options::in_folder(folder.path().to_owned()));
    let (scripts, tooling) = (scripts(target.dialect), Tooling { backups, ..Tooling::default() });
    let job = Job { backup: true, tooling: &tooling, ..job("u1", &scripts, stop()) };
    let goal = Goal::Up(plan::Target::Newest);
    let migration = Migration { target, timeouts: timeouts(), goal, options: lenient() };
    let mut path = None;
    let mut listener = |told| {
        if let Progress::BackedUp { path: at } = told {
            path = Some(at);
        }
    };
    let ended = Box::pin(migrate(&migration, &job, &mut listener)).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded, "{}", target.dialect);
    std::fs::metadata(path.unwrap()).unwrap().len()
}

async fn refused(dialect: Dialect, url: String) -> Error {
    let error = Connection::open(&target(dialect, url), &timeouts()).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
    assert!(matches!(error.reason(), Reason::DatabaseRefused | Reason::DatabaseUnavailable), "{error:?}");
    error
}

/// What both servers must do that let in only who speaks TLS; `url` has a password and no parameters.
async fn holds(dialect: Dialect, authority: &Authority, url: &str, refuses_plain: &str) {
    let target = target(dialect, format!("{url}{}", verified(dialect, &authority.file())));
    // The tools verify too: without the authority they would make no backup.
    assert!(migrated(&target).await > 100, "{dialect}");
    let stranger = Authority::new().unwrap();
    let error = refused(dialect, format!("{url}{}", verified(dialect, &stranger.file()))).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    let error =
        refused(dialect, format!("{url}{}", verified(dialect, Path::new("/nonexistent/ca.pem")))).await;
    assert!(error.to_string().contains("No such file"), "{error}");
    // Nobody is let in without it.
    refused(dialect, format!("{url}{refuses_plain}")).await;
}

#[tokio::test]
async fn postgres_is_migrated_and_backed_up_over_tls_by_who_trusts_it() {
    let authority = Authority::new().unwrap();
    let server = Postgres::builder().tls(authority.issue(&["127.0.0.1"]).unwrap()).start().await.unwrap();
    let url = server.url().replace("grey@", "grey:s3cret@");
    holds(Dialect::Postgres, &authority, &url, "?sslmode=disable").await;
    let count = server.query("postgres", "SELECT count(*) FROM items").await.unwrap();
    assert_eq!(count, "2");
}

#[tokio::test]
async fn mariadb_is_migrated_and_backed_up_over_tls_by_who_trusts_it() {
    let authority = Authority::new().unwrap();
    let server = MariaDb::builder().tls(authority.issue(&["127.0.0.1"]).unwrap()).start().await.unwrap();
    let user = "CREATE USER 'tls'@'127.0.0.1' IDENTIFIED BY 's3cret'; GRANT ALL ON *.* TO 'tls'@'127.0.0.1'";
    server.query("grey", user).await.unwrap();
    let url = server.url().replace("grey:grey@", "tls:s3cret@");
    holds(Dialect::MySql, &authority, &url, "?ssl-mode=DISABLED").await;
    assert_eq!(server.query("grey", "SELECT count(*) FROM items").await.unwrap(), "2");
    let encrypted = format!("{url}?ssl-mode=REQUIRED");
    Connection::open(&target(Dialect::MySql, encrypted), &timeouts()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_by_who_names_it() {
    let (authority, identity) = Authority::of_itself(&["127.0.0.1"]).unwrap();
    let (_, stranger) = Authority::of_itself(&["127.0.0.1"]).unwrap();
    let (misnamed, elsewhere) = Authority::of_itself(&["elsewhere.example"]).unwrap();
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let start = async |identity: &Identity| match dialect {
            Dialect::Postgres => {
                let server = Postgres::builder().tls(identity.clone()).start().await.unwrap();
                (server.url().replace("grey@", "grey:s3cret@"), Some(server), None)
            }
            _ => {
                let server = MariaDb::builder().tls(identity.clone()).start().await.unwrap();
                (server.url(), None, Some(server))
            }
        };
        let (url, _postgres, _mariadb) = start(&identity).await;
        assert!(
            migrated(&target(dialect, format!("{url}{}", verified(dialect, &authority.file())))).await > 100
        );
        // Only that one, and only for its name.
        let (url, _postgres, _mariadb) = start(&stranger).await;
        refused(dialect, format!("{url}{}", verified(dialect, &authority.file()))).await;
        let (url, _postgres, _mariadb) = start(&elsewhere).await;
        let strict = format!("{url}{}", verified(dialect, &misnamed.file()));
        refused(dialect, strict.clone()).await;
        let lax = strict.replace("verify-full", "verify-ca").replace("VERIFY_IDENTITY", "VERIFY_CA");
        Connection::open(&target(dialect, lax), &timeouts()).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_where_the_name_counts() {
    let authority = Authority::new().unwrap();
    let identity = || authority.issue(&["elsewhere.example"]).unwrap();
    let (postgres, mariadb) = (Postgres::builder().tls(identity()), MariaDb::builder().tls(identity()));
    let (postgres, mariadb) = tokio::try_join!(postgres.start(), mariadb.start()).unwrap();
    let file = authority.file();
    for (dialect, url, lax) in [
        (Dialect::Postgres, postgres.url().replace("grey@", "grey:s3cret@"), "verify-ca"),
        (Dialect::MySql, mariadb.url(), "VERIFY_CA"),
    ] {
        let strict = format!("{url}{}", verified(dialect, &file));
        let error = refused(dialect, strict.clone()).await;
        assert!(error.to_string().contains("certificate"), "{error}");
        let lax = strict.replace("verify-full", lax).replace("VERIFY_IDENTITY", lax);
        Connection::open(&target(dialect, lax), &timeouts()).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_the_url_insists() {
    for (dialect, insists) in
        [(Dialect::Postgres, "?sslmode=require"), (Dialect::MySql, "?ssl-mode=REQUIRED")]
    {
        let world = World::new(dialect).await;
        let url = world.target.url.expose().replace("grey@", "grey:s3cret@");
        let error = refused(dialect, format!("{url}{insists}")).await;
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}

#[tokio::test]
async fn pt_online_schema_change_encrypts_and_verifies_as_the_url_says() {
    let Some(tools) = pt(&[]) else { return };
    let authority = Authority::new().unwrap();
    let server =
        MariaDb::builder().tls(authority.issue(&["elsewhere.example"]).unwrap()).start().await.unwrap();
    server
        .query("grey", "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTO_INCREMENT, total INTEGER NOT NULL)")
        .await
        .unwrap();
    server.query("grey", &fill_orders(10)).await.unwrap();
    let file = authority.file();
    for (mode, column) in [("REQUIRED", "a"), ("VERIFY_CA", "b")] {
        let url = format!("{}?ssl-mode={mode}&ssl-ca={}", server.url(), file.display());
        let mut connection = Connection::open(&target(Dialect::MySql, url), &timeouts()).await.unwrap();
        connection.lock(&stop()).await.unwrap();
        let step = step("pt-online-schema-change", &format!("ADD COLUMN {column} INTEGER"));
        let result = Box::pin(external::run(&connection, &step, &tools, &mut |_| {}, &stop())).await;
        match mode {
            "REQUIRED" => result.unwrap(),
            // It has no check of the authority alone: that its name is wrong shows that it looks.
            _ => assert!(result.unwrap_err().to_string().contains("certificate")),
        }
    }
}
