//! What hostile clients do: one list, and for each attack what one of its connections sends.
//!
//! Whoever is turned away comes back at once. Attackers have machines of their own in life: here they share the cores with
//! those whom they attack, so their thread has the lowest priority and takes what the others leave.

use super::port::{Ask, H1, H2, Port, Protocol, Wire};
use super::wire::{
    CONTINUATION, Client, DATA, END_HEADERS, FRAME, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    Sender, WIDE, WINDOW_UPDATE, frame, head, headers, http1, literal, preface,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use rustix::process::setpriority_process;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// What one unfinished body holds.
const BODY: usize = 1 << 20;
/// What a header holds that is far too large.
const HUGE: usize = 1 << 20;
/// Between two bytes of what only drips.
const DRIP: Duration = Duration::from_millis(50);
/// Before whoever was turned away comes back, at each scale.
const BREATH: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(5)];
/// How long a server may take what it is sent before that counts as an attack that it has met.
const SOON: Duration = Duration::from_millis(500);
/// Frames that are written together where many are.
const BURST: usize = 200;

/// What may come of an answer before its reader says more, of which it takes no more than that.
const SIP: u32 = 1_000;
/// The lowest priority that a thread can have.
const LOWEST: i32 = 19;
/// It takes watchers' slots as their owners may: by reading all that comes.
pub(super) const ENDLESS: &str = "streams that never end";

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Small,
    Full,
}

type Act = for<'a> fn(&'a Port, Scale, &'a Landing) -> BoxFuture<'a, io::Result<()>>;

pub(super) struct Attack {
    pub(super) name: &'static str,
    meets: fn(&Port) -> bool,
    /// Connections at each scale.
    clients: [usize; 2],
    act: Act,
}

/// One connection's mark that it has done its worst, or was refused.
pub(super) struct Landing {
    landed: Arc<AtomicUsize>,
    is_down: AtomicBool,
}

impl Landing {
    fn down(&self) {
        if !self.is_down.swap(true, Relaxed) {
            self.landed.fetch_add(1, Relaxed);
        }
    }
}

macro_rules! attack {
    ($name:expr, $clients:expr, $meets:expr, $act:path) => {
        Attack {
            name: $name,
            clients: $clients,
            meets: $meets,
            act: |port, scale, landing| $act(port, scale, landing).boxed(),
        }
    };
}

const ANY: fn(&Port) -> bool = |_| true;
const TLS: fn(&Port) -> bool = Port::is_tls;
const GRPC: fn(&Port) -> bool = Port::is_grpc;
const HTTP1: fn(&Port) -> bool = Port::speaks_http1;
const WATCHED: fn(&Port) -> bool = Port::is_watched;

/// All of them.
pub(super) const ATTACKS: &[Attack] = &[
    attack!("connections that say nothing", [1_000, 5_000], ANY, silence),
    attack!("connections of one byte", [100, 5_000], ANY, one_byte),
    attack!("half handshakes", [100, 1_000], TLS, half_hello),
    attack!("half prefaces", [20, 500], ANY, half_preface),
    attack!("connections that come and go", [2, 16], ANY, churn),
    attack!("dripping headers", [20, 500], HTTP1, dripping_headers),
    attack!("dripping bodies", [20, 500], HTTP1, dripping_bodies),
    attack!("unfinished posts", [20, 500], HTTP1, unfinished_posts),
    attack!("unfinished bodies", [4, 64], ANY, unfinished_bodies),
    attack!("unfinished bodies, no token", [4, 64], ANY, unknown_bodies),
    attack!("unfinished bodies, open methods", [4, 64], ANY, open_bodies),
    attack!("one answer that is not taken", [100, 5_000], ANY, untaken),
    attack!("readers without a window", [4, 64], ANY, no_window),
    attack!("watchers without a window", [4, 64], WATCHED, untaking_watchers),
    attack!("readers that stop", [4, 64], ANY, sips),
    attack!("readers that never read", [4, 64], ANY, no_reading),
    attack!("pipelines that never read", [4, 64], HTTP1, pipelines),
    attack!("rapid resets", [1, 4], ANY, resets),
    attack!("floods of settings", [1, 4], ANY, settings),
    attack!("floods of pings", [1, 4], ANY, pings),
    attack!("floods of empty frames", [1, 4], ANY, empty_frames),
    attack!("headers that never end", [1, 4], ANY, continuations),
    attack!("compressed headers", [1, 4], ANY, bomb),
    attack!("many headers", [2, 16], ANY, many_headers),
    attack!("huge headers", [2, 16], HTTP1, huge_headers),
    attack!(ENDLESS, [2, 32], GRPC, endless),
    attack!("busy streams", [1, 4], GRPC, busy),
];

/// Attacks that go on, on a thread of their own; they end when this is dropped.
pub(super) struct Raid {
    runtime: Option<Runtime>,
    clients: usize,
    landed: Arc<AtomicUsize>,
}

impl Raid {
    pub(super) fn start(port: &Arc<Port>, attacks: &[&'static Attack], scale: Scale) -> Self {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("hostile").enable_all();
        // Of the one thread that asks: Linux has priorities of threads.
        let builder = builder.on_thread_start(|| setpriority_process(None, LOWEST).unwrap());
        let runtime = builder.build().unwrap();
        let (mut clients, landed) = (0, Arc::new(AtomicUsize::new(0)));
        for attack in attacks {
            let connections = attack.clients[scale as usize];
            for _ in 0..connections {
                let (port, act) = (Arc::clone(port), attack.act);
                let landing = Landing { landed: Arc::clone(&landed), is_down: AtomicBool::new(false) };
                runtime.spawn(async move {
                    loop {
                        // Whatever ends it, it has had its turn.
                        drop(act(&port, scale, &landing).await);
                        landing.down();
                        sleep(BREATH[scale as usize]).await;
                    }
                });
            }
            clients += connections;
        }
        Self { runtime: Some(runtime), clients, landed }
    }

    /// Whether every client has done its worst at least once.
    pub(super) fn has_landed(&self) -> bool {
        self.landed.load(Relaxed) == self.clients
    }

    pub(super) fn landed(&self) -> String {
        format!("{} of {}", self.landed.load(Relaxed), self.clients)
    }
}

impl Drop for Raid {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Attack {
    /// Whether a port has what is attacked.
    pub(super) fn meets(&self, port: &Port) -> bool {
        (self.meets)(port)
    }
}

/// How many streams one connection opens.
fn streams(scale: Scale) -> usize {
    match scale {
        Scale::Small => 24,
        Scale::Full => 200,
    }
}

/// Reads until the server hangs up.
async fn hold(mut wire: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut read = [0; 4096];
    while wire.read(&mut read).await? > 0 {}
    Ok(())
}

async fn silence(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let stream = port.dial().await?;
    landing.down();
    hold(stream).await
}

async fn one_byte(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut stream = port.dial().await?;
    // What a TLS record, a preface and a request begin with.
    let first = match (port.is_tls(), port.protocol) {
        (true, _) => 0x16,
        (false, Protocol::Grpc) => PREFACE[0],
        (false, Protocol::Http) => b'G',
    };
    stream.write_all(&[first]).await?;
    landing.down();
    hold(stream).await
}

async fn half_hello(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let (mut stream, hello) = (port.dial().await?, port.hello());
    stream.write_all(&hello[..hello.len() / 2]).await?;
    landing.down();
    hold(stream).await
}

async fn half_preface(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = port.connect(H2).await?;
    wire.write_all(&PREFACE[..PREFACE.len() / 2]).await?;
    landing.down();
    hold(wire).await
}

async fn churn(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    for _ in 0..streams(scale) {
        let stream = port.dial().await?;
        // Torn off instead of closed.
        stream.set_zero_linger()?;
    }
    landing.down();
    Ok(())
}

async fn dripping_headers(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = http1(port).await?;
    wire.write_all(head(port, &port.large(), Sender::Known).as_bytes()).await?;
    landing.down();
    loop {
        wire.write_all(b"x-a: b\r\n").await?;
        wire.flush().await?;
        sleep(DRIP).await;
    }
}

async fn dripping_bodies(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = http1(port).await?;
    let head = head(port, &port.upload(), Sender::Known) + "transfer-encoding: chunked\r\n\r\n";
    wire.write_all(head.as_bytes()).await?;
    landing.down();
    loop {
        wire.write_all(b"1\r\n \r\n").await?;
        wire.flush().await?;
        sleep(DRIP).await;
    }
}

async fn unfinished_posts(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = http1(port).await?;
    let head = head(port, &port.upload(), Sender::Known) + &format!("content-length: {BODY}\r\n\r\n");
    wire.write_all(head.as_bytes()).await?;
    let body = vec![b' '; BODY - 1];
    {
        let sending = std::pin::pin!(wire.write_all(&body));
        until_taken(sending, landing).await?;
    }
    hold(wire).await
}

/// Waits until the server has taken what is sent; one that does not take it all has met the attack as well.
async fn until_taken(
    mut sending: Pin<&mut (impl Future<Output = io::Result<()>> + Send)>,
    landing: &Landing,
) -> io::Result<()> {
    let sent = timeout(SOON, sending.as_mut()).await;
    landing.down();
    match sent {
        Ok(sent) => sent,
        Err(_) => sending.await,
    }
}

async fn unfinished_bodies(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    bodies(port, &port.upload(), Sender::Known, scale, landing).await
}

async fn unknown_bodies(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    bodies(port, &port.upload(), Sender::Unknown, scale, landing).await
}

async fn open_bodies(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    bodies(port, &port.open_upload(), Sender::Unknown, scale, landing).await
}

/// Streams whose bodies lack their last byte. One that was answered is followed by another, as many times as there are
/// streams.
async fn bodies(port: &Port, ask: &Ask, sender: Sender, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut body = vec![b' '; BODY - 1];
    if port.is_grpc() {
        // Not compressed, and as long as promised but for one byte.
        body[0] = 0;
        body[1..5].copy_from_slice(&u32::try_from(BODY - 5).unwrap().to_be_bytes());
    }
    let mut client = Client::connect(port, WIDE).await?;
    let (mut open, mut begun): (Vec<(u32, usize)>, _) = (Vec::new(), 0);
    loop {
        open.retain(|(stream, _)| client.is_open(*stream));
        while open.len() < streams(scale) && begun < 2 * streams(scale) {
            open.push((client.begin(ask, sender).await?, 0));
            begun += 1;
        }
        let mut pushed = 0;
        for (stream, sent) in &mut open {
            let more = client.push(*stream, &body[*sent..]).await?;
            (*sent, pushed) = (*sent + more, pushed + more);
        }
        if pushed == 0 {
            landing.down();
            client.read().await?;
        }
    }
}

async fn no_window(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, 0).await?;
    ask_much(port, &mut client, scale).await?;
    landing.down();
    loop {
        client.read().await?;
    }
}

/// Asks once, and leaves the answer where it is; whether the server sees that somebody is there costs nothing.
async fn untaken(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, 0).await?;
    client.send(&port.open_ask(), Sender::Unknown).await?;
    landing.down();
    loop {
        client.read().await?;
    }
}

/// Whoever watches nothing any more comes back.
async fn untaking_watchers(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, 0).await?;
    for ask in port.watches().iter().cycle().take(streams(scale)) {
        client.send(ask, Sender::Known).await?;
    }
    landing.down();
    while client.is_waiting() {
        client.read().await?;
    }
    Ok(())
}

async fn sips(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, SIP).await?;
    client.stop_taking();
    let ask = port.large();
    for _ in 0..streams(scale) {
        client.send(&ask, Sender::Known).await?;
    }
    landing.down();
    loop {
        client.read().await?;
    }
}

async fn no_reading(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, WIDE).await?;
    client.stop_taking();
    until_taken(std::pin::pin!(ask_much(port, &mut client, scale)), landing).await?;
    pending().await
}

/// Asks for the largest answers and for those that never end.
async fn ask_much(port: &Port, client: &mut Client<'_>, scale: Scale) -> io::Result<()> {
    let mut asks = vec![port.large()];
    if port.is_grpc() {
        asks.extend(port.endless());
    }
    for ask in asks.iter().cycle().take(streams(scale)) {
        client.send(ask, Sender::Known).await?;
    }
    Ok(())
}

async fn pipelines(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = http1(port).await?;
    let ask = port.large();
    let length = ask.body.len();
    let mut request = head(port, &ask, Sender::Known).into_bytes();
    request.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    request.extend_from_slice(&ask.body);
    wire.write_all(&request).await?;
    landing.down();
    loop {
        wire.write_all(&request).await?;
        breathe(scale).await;
    }
}

/// Writes again and again what `next` makes, and reads whatever comes.
async fn flood(
    wire: Wire,
    scale: Scale,
    landing: &Landing,
    next: impl FnMut(&mut Vec<u8>),
) -> io::Result<()> {
    let (read, write) = tokio::io::split(wire);
    tokio::try_join!(hold_until_lost(read), pour(write, scale, landing, next)).map(drop)
}

/// In small numbers attackers leave the machine to others in between: what counts there is what they make of the memory.
async fn breathe(scale: Scale) {
    if scale == Scale::Small {
        sleep(DRIP).await;
    }
}

async fn hold_until_lost(read: impl AsyncRead + Unpin) -> io::Result<()> {
    hold(read).await?;
    Err(io::ErrorKind::ConnectionAborted.into())
}

async fn pour(
    mut write: impl AsyncWrite + Unpin,
    scale: Scale,
    landing: &Landing,
    mut next: impl FnMut(&mut Vec<u8>),
) -> io::Result<()> {
    let mut out = Vec::new();
    loop {
        out.clear();
        next(&mut out);
        write.write_all(&out).await?;
        write.flush().await?;
        landing.down();
        breathe(scale).await;
    }
}

async fn resets(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let wire = preface(port, &[]).await?;
    let (block, mut stream) = (headers(port, &port.upload(), Sender::Known), 1);
    flood(wire, scale, landing, |out| {
        for _ in 0..BURST {
            frame(out, HEADERS, END_HEADERS, stream, &block);
            // CANCEL.
            frame(out, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            stream += 2;
        }
    })
    .await
}

async fn settings(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let wire = preface(port, &[]).await?;
    flood(wire, scale, landing, |out| {
        (0..BURST).for_each(|_| frame(out, SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    })
    .await
}

/// Nobody takes the answers.
async fn pings(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let wire = preface(port, &[]).await?;
    let (_read, write) = tokio::io::split(wire);
    pour(write, scale, landing, |out| (0..BURST).for_each(|_| frame(out, PING, 0, 0, &[7; 8]))).await
}

async fn empty_frames(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = preface(port, &[]).await?;
    let mut first = Vec::new();
    frame(&mut first, HEADERS, END_HEADERS, 1, &headers(port, &port.upload(), Sender::Known));
    wire.write_all(&first).await?;
    flood(wire, scale, landing, |out| {
        for _ in 0..BURST {
            frame(out, DATA, 0, 1, &[]);
            frame(out, PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            frame(out, WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
        }
    })
    .await
}

async fn continuations(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = preface(port, &[]).await?;
    let mut first = Vec::new();
    frame(&mut first, HEADERS, 0, 1, &headers(port, &port.upload(), Sender::Known));
    wire.write_all(&first).await?;
    let mut block = Vec::new();
    while block.len() < FRAME - 64 {
        literal(&mut block, &[0], b"x-more", b"and more");
    }
    flood(wire, scale, landing, |out| frame(out, CONTINUATION, 0, 1, &block)).await
}

/// Each byte of a block stands for a header of 4,000.
async fn bomb(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let wire = preface(port, &[]).await?;
    let (mut block, mut stream) = (headers(port, &port.upload(), Sender::Known), 1);
    // Remembered as the newest entry, number 62.
    let mut first = block.clone();
    first.extend_from_slice(b"\x40\x01x\x7f\xa1\x1e");
    first.resize(first.len() + 4_000, b'x');
    block.resize(FRAME, 0xbe);
    flood(wire, scale, landing, |out| {
        frame(out, HEADERS, END_HEADERS, stream, if stream == 1 { &first } else { &block });
        frame(out, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        stream += 2;
    })
    .await
}

async fn many_headers(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    if !port.is_grpc() {
        let mut wire = http1(port).await?;
        let head = head(port, &port.large(), Sender::Known) + &"x-a: b\r\n".repeat(20_000) + "\r\n";
        let written = wire.write_all(head.as_bytes()).await;
        landing.down();
        return match written {
            Ok(()) => hold(wire).await,
            refused => refused,
        };
    }
    let wire = preface(port, &[]).await?;
    let (block, mut more, mut stream) = (headers(port, &port.upload(), Sender::Known), Vec::new(), 1);
    while more.len() < FRAME - 64 {
        literal(&mut more, &[0], b"x-a", b"b");
    }
    flood(wire, scale, landing, |out| {
        frame(out, HEADERS, 0, stream, &block);
        frame(out, CONTINUATION, 0, stream, &more);
        frame(out, CONTINUATION, END_HEADERS, stream, &more);
        frame(out, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        stream += 2;
    })
    .await
}

async fn huge_headers(port: &Port, _: Scale, landing: &Landing) -> io::Result<()> {
    let mut wire = port.connect(H1).await?;
    let head = head(port, &port.large(), Sender::Known) + "x-huge: " + &"x".repeat(HUGE);
    let written = wire.write_all(head.as_bytes()).await;
    landing.down();
    match written {
        Ok(()) => hold(wire).await,
        refused => refused,
    }
}

async fn endless(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, WIDE).await?;
    let (asked, stream) = (port.endless(), port.stream());
    for number in 0..streams(scale) {
        match number % (asked.len() + 1) {
            0 => {
                let id = client.begin(&stream, Sender::Known).await?;
                client.push(id, &stream.body).await?;
            }
            other => client.send(&asked[other - 1], Sender::Known).await?,
        }
    }
    landing.down();
    loop {
        client.read().await?;
    }
}

/// One stream that is never idle: message after message, and every answer is taken.
async fn busy(port: &Port, scale: Scale, landing: &Landing) -> io::Result<()> {
    let mut client = Client::connect(port, WIDE).await?;
    let ask = port.stream();
    let messages = ask.body.repeat(FRAME / ask.body.len());
    let stream = client.begin(&ask, Sender::Known).await?;
    let mut at = 0;
    while client.is_open(stream) {
        let sent = client.push(stream, &messages[at..]).await?;
        at = (at + sent) % messages.len();
        landing.down();
        if sent == 0 {
            client.read().await?;
        }
        breathe(scale).await;
    }
    Ok(())
}
