//! The data-plane server: spreads, bounds and drains its connections.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use grey_runtime::server::{Options, PerCore, PerCoreHandle};
use http::Request;
use hyper::{body::Incoming, service::Service};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    DEADLINE, any_port, eventually,
    rpc::{Gate, OnHyper, ask, connect},
    within,
};

fn start(threads: usize, options: Options) -> (Gate, PerCoreHandle, CancellationToken) {
    let (gate, draining) = (Gate::new(), CancellationToken::new());
    let server = PerCore::bind(any_port(), threads).unwrap();
    assert_eq!(server.threads(), threads);
    let handle = server.serve(options, gate.on_threads(), draining.clone()).unwrap();
    (gate, handle, draining)
}

#[tokio::test]
async fn calls_are_served_from_several_threads_on_one_port() {
    let (gate, handle, draining) = start(3, Options::default());
    let mut clients = Vec::new();
    for _ in 0..48 {
        let mut client = within(connect(handle.local_addr())).await.unwrap();
        client.check(ask("")).await.unwrap();
        clients.push(client);
    }
    let threads = gate.threads.lock().unwrap().clone();
    assert!(threads.len() == 3, "{threads:?}");
    assert!(threads.iter().all(|name| name.starts_with("data-")), "{threads:?}");
    assert_eq!(handle.connections(), 48);
    draining.cancel();
    assert!(within(handle.wait()).await);
}

/// A service of one connection, counted among those of its thread.
struct OfThread {
    service: OnHyper,
    open: Arc<[AtomicUsize; 3]>,
    thread: usize,
}

impl Drop for OfThread {
    fn drop(&mut self) {
        self.open[self.thread].fetch_sub(1, Relaxed);
    }
}

impl Service<Request<Incoming>> for OfThread {
    type Response = <OnHyper as Service<Request<Incoming>>>::Response;
    type Error = <OnHyper as Service<Request<Incoming>>>::Error;
    type Future = <OnHyper as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.service.call(request)
    }
}

#[tokio::test]
async fn connections_are_dealt_evenly_also_after_some_were_closed() {
    let (gate, draining) = (Gate::new(), CancellationToken::new());
    let open: Arc<[AtomicUsize; 3]> = Arc::default();
    let counted = Arc::clone(&open);
    let make = move |thread: usize| {
        let (gate, counted) = (gate.clone(), Arc::clone(&counted));
        move |_| {
            counted[thread].fetch_add(1, Relaxed);
            OfThread { service: gate.on_hyper(), open: Arc::clone(&counted), thread }
        }
    };
    let handle =
        PerCore::bind(any_port(), 3).unwrap().serve(Options::default(), make, draining.clone()).unwrap();
    let addr = handle.local_addr();
    let connected = async || {
        let mut client = within(connect(addr)).await.unwrap();
        client.check(ask("")).await.unwrap();
        client
    };
    let dealt = || open.each_ref().map(|open| open.load(Relaxed));
    let mut clients = Vec::new();
    for at in 1..=9 {
        clients.push(connected().await);
        let dealt = dealt();
        assert_eq!(dealt.iter().sum::<usize>(), at);
        assert!(dealt.iter().max().unwrap() - dealt.iter().min().unwrap() <= 1, "{dealt:?}");
    }
    // All of one thread but one, and one of another.
    let closed = [0, 3, 1];
    let mut at = 0;
    clients.retain(|_| {
        at += 1;
        !closed.contains(&(at - 1))
    });
    eventually("they are closed", || handle.connections() == 6).await;
    assert_eq!(dealt(), [1, 2, 3]);
    for _ in 0..3 {
        clients.push(connected().await);
    }
    assert_eq!(dealt(), [3, 3, 3]);
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn call_in_flight_finishes_while_new_connections_are_refused() {
    let (gate, handle, draining) = start(2, Options { drain_grace: DEADLINE, ..Options::default() });
    let addr = handle.local_addr();
    let mut client = within(connect(addr)).await.unwrap();
    let mut other = client.clone();
    let slow = tokio::spawn(async move { client.check(ask("slow")).await });
    within(gate.entered.acquire()).await.unwrap().forget();

    draining.cancel();
    let refused = async { while TcpStream::connect(addr).await.is_ok() {} };
    within(refused).await;
    assert!(!slow.is_finished());
    gate.release.add_permits(1);
    assert!(within(slow).await.unwrap().is_ok());
    assert!(within(handle.wait()).await, "every call finished");
    assert_eq!(within(other.check(ask(""))).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_drain() {
    let patient =
        Options { drain_grace: DEADLINE * 10, handshake_timeout: DEADLINE * 10, ..Options::default() };
    let (_gate, handle, draining) = start(1, patient);
    let mut idle = within(connect(handle.local_addr())).await.unwrap();
    idle.check(ask("")).await.unwrap();
    let _silent = TcpStream::connect(handle.local_addr()).await.unwrap();
    eventually("both are connected", || handle.connections() == 2).await;
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn stuck_call_is_cut_off_after_the_grace() {
    let (gate, handle, draining) =
        start(1, Options { drain_grace: Duration::from_millis(50), ..Options::default() });
    let mut client = within(connect(handle.local_addr())).await.unwrap();
    let stuck = tokio::spawn(async move { client.check(ask("slow")).await });
    within(gate.entered.acquire()).await.unwrap().forget();
    draining.cancel();
    assert!(!within(handle.wait()).await, "a call was cut off");
    assert!(within(stuck).await.unwrap().is_err());
}

#[tokio::test]
async fn beyond_the_limit_connections_without_a_call_make_room_first() {
    let (_gate, handle, draining) = start(2, Options { max_connections: 2, ..Options::default() });
    let addr = handle.local_addr();
    let mut first = within(connect(addr)).await.unwrap();
    first.check(ask("")).await.unwrap();
    let silent = TcpStream::connect(addr).await.unwrap();
    eventually("both are let in", || handle.connections() == 2).await;
    let mut second = within(connect(addr)).await.unwrap();
    assert!(within(second.check(ask(""))).await.is_ok());
    assert!(closed(silent).await, "it made room");
    assert!(first.check(ask("")).await.is_ok(), "the first is not harmed");
    // Of two that are idle, one does too.
    let mut third = within(connect(addr)).await.unwrap();
    assert!(within(third.check(ask(""))).await.is_ok());
    eventually("no more than may be are open", || handle.connections() == 2).await;
    drop((first, second, third));
    eventually("the slots are free again", || handle.connections() == 0).await;
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn client_that_says_nothing_is_closed() {
    let options = Options { handshake_timeout: Duration::from_millis(50), ..Options::default() };
    let (_gate, handle, draining) = start(1, options);
    let mut talking = within(connect(handle.local_addr())).await.unwrap();
    talking.check(ask("")).await.unwrap();
    assert!(closed(TcpStream::connect(handle.local_addr()).await.unwrap()).await);
    assert!(talking.check(ask("")).await.is_ok(), "only the first bytes have a deadline");
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn port_taken_by_another_server_is_refused() {
    let first = PerCore::bind(any_port(), 2).unwrap();
    let error = PerCore::bind(first.local_addr(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn panic_of_a_server_thread_begins_the_drain() {
    let (gate, draining) = (Gate::new(), CancellationToken::new());
    let server = PerCore::bind(any_port(), 2).unwrap();
    let make = move |thread| {
        assert_ne!(thread, 1, "planted");
        gate.on_threads()(thread)
    };
    let handle = server.serve(Options::default(), make, draining.clone()).unwrap();
    within(draining.cancelled()).await;
    assert!(!within(handle.wait()).await);
}

/// Whether the server closes the connection.
async fn closed(mut stream: TcpStream) -> bool {
    let mut bytes = [0; 256];
    within(async {
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
    })
    .await
}
