//! A connection that is lost at one request or another, before the server has it or before its answer is back.

use crate::run_world::{LONG, World, failing, mariadb, postgres, scripts};
use futures::StreamExt as _;
use grey_runtime::Secret;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, Outcome};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Requests between two that are tried; the first one moves with the dialect and kind, so all remainders are met.
const STRIDE: usize = 7;

/// Where a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Request,
    Answer,
}

/// Forwards connections to `server`; at the `nth` request of all, the connection ends.
async fn forwarder(
    server: SocketAddr,
    nth: usize,
    lost: Lost,
    seen: Arc<AtomicUsize>,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(forward(client, server, nth, lost, Arc::clone(&seen)));
        }
    });
    (addr, tasks)
}

async fn forward(mut client: TcpStream, server: SocketAddr, nth: usize, lost: Lost, seen: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut asked, mut told) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let this = seen.fetch_add(1, Ordering::Relaxed) + 1 == nth;
                if this && lost == Lost::Request {
                    return;
                }
                if server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
                if this {
                    // The server has done it once it answers.
                    let answered = server.read(&mut told).await;
                    assert!(answered.is_ok());
                    return;
                }
            }
            read = server.read(&mut told) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&told[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Runs an upgrade whose `nth` request is lost; tells how many requests there were.
async fn run(dialect: Dialect, bad: bool, nth: usize, lost: Lost) -> usize {
    let mut world = World::new(dialect).await;
    let before = world.shape().await;
    let server = match dialect {
        Dialect::Postgres => postgres().await.addr(),
        _ => mariadb().await.addr(),
    };
    let seen = Arc::new(AtomicUsize::new(0));
    let (addr, _tasks) = forwarder(server, nth, lost, Arc::clone(&seen)).await;
    let direct = world.target.clone();
    world.target.url = Secret::new(direct.url.expose().replace(&server.to_string(), &addr.to_string()));
    let scripts = if bad { failing(dialect) } else { scripts(dialect) };
    let goal = Goal::Up(Target::Newest);
    let ended = world.migrate(&scripts, goal, LONG, &mut |_| {}).await.unwrap();
    world.target = direct;
    let what = format!("{dialect} {lost:?} {nth}: {ended:?}");
    if bad {
        assert!(matches!(ended.outcome, Outcome::Failed(_)), "{what}");
        assert_eq!(world.shape().await, before, "{what}");
        assert!(world.applied().await.is_empty(), "{what}");
    } else {
        assert_eq!(ended.outcome, Outcome::Succeeded, "{what}");
        assert_eq!(world.history().await, ["1 applied", "2 applied"], "{what}");
        assert_eq!(world.sql("SELECT count(*) FROM items WHERE note = 1").await, "1", "{what}");
        assert_eq!(world.sql("SELECT count(*) FROM notes").await, "1", "{what}");
    }
    seen.load(Ordering::Relaxed)
}

async fn lost_everywhere(dialect: Dialect, bad: bool) {
    let requests = run(dialect, bad, usize::MAX, Lost::Request).await;
    assert!(requests > 25, "{requests}");
    let points = (1..=requests / STRIDE).flat_map(|point| {
        let at = point * STRIDE;
        [(at, Lost::Request), (at - STRIDE / 2, Lost::Answer)]
    });
    let runs = points.map(|(nth, lost)| run(dialect, bad, nth, lost));
    futures::stream::iter(runs).buffer_unordered(8).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn no_lost_request_is_done_twice_or_left_out_on_mariadb() {
    lost_everywhere(Dialect::MySql, false).await;
}

#[tokio::test]
async fn no_lost_request_is_done_twice_or_left_out_on_postgres() {
    lost_everywhere(Dialect::Postgres, false).await;
}

#[tokio::test]
async fn a_lost_request_does_not_keep_an_upgrade_from_being_taken_back() {
    lost_everywhere(Dialect::MySql, true).await;
}
