//! Every attack.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_examples::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use crate::attack::{Kind, Plan, Raw, Seen, hammer};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, field,
    frame, get, indexed_field, request,
};

/// A request whose body goes on.
fn upload() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &request("/never"))
}

/// The stream of the `number`th request.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

pub(crate) async fn run(plan: &Plan) -> Result<Seen, Failure> {
    let reset = |number| frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8]);
    match plan.kind {
        Kind::RapidReset => hammer(plan, &[], |n| [get(stream(n), "/never"), reset(n)].concat(), false).await,
        // 200 requests later, which are read later.
        Kind::LateReset => {
            let late = |n: u32| {
                let before = n.checked_sub(200).map(reset).unwrap_or_default();
                [get(stream(n), "/never"), before].concat()
            };
            let seen = hammer(plan, &[], late, true).await?;
            // Resets are what counts: the first 200 requests had none.
            Ok(Seen { sent: seen.sent.saturating_sub(200), ..seen })
        }
        Kind::Ping => hammer(plan, &[], |_| frame(PING, 0, 0, &[0; 8]), false).await,
        Kind::Settings => hammer(plan, &[], |_| frame(SETTINGS, 0, 0, &[]), false).await,
        Kind::Priority => hammer(plan, &[], |n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1]), false).await,
        // One byte more each time: the window has room for a while.
        Kind::WindowUpdate => hammer(plan, &[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), false).await,
        Kind::EmptyData => hammer(plan, &upload(), |_| frame(DATA, 0, 1, &[]), false).await,
        Kind::TinyData => hammer(plan, &upload(), |_| frame(DATA, 0, 1, b"x"), false).await,
        Kind::MadeReset => {
            let mistaken = |n| [get(stream(n), "/never"), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat();
            hammer(plan, &[], mistaken, false).await
        }
        Kind::Unknown => hammer(plan, &[], |_| frame(99, 0, 0, b"?"), false).await,
        Kind::Continuation => continuation(plan).await,
        Kind::HeaderBomb => header_bomb(plan).await,
        Kind::SlowRead => slow_read(plan).await,
        Kind::SlowHead => trickle(plan, slow_head()).await,
        Kind::SlowHead2 => trickle(plan, slow_head2()).await,
        Kind::SlowBody => silence(plan).await,
        Kind::SlowHandshake => trickle(plan, slow_handshake()).await,
        Kind::Connections => connections(plan).await,
    }
}

/// A head that is cut into frames of a kibibyte, and never ends. What was sent is in bytes.
async fn continuation(plan: &Plan) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let (began, over) = (Instant::now(), Duration::from_secs(plan.seconds));
    while began.elapsed() < over {
        let Ok(mut raw) = Raw::connect(plan.address).await else { continue };
        let _ = raw.write.write_all(&frame(HEADERS, END_STREAM, 1, &request("/"))).await;
        let more = frame(CONTINUATION, 0, 1, &field("x-more", &"x".repeat(1000)));
        let mut sent = 0;
        while began.elapsed() < over && raw.write.write_all(&more).await.is_ok() {
            sent += 1024;
            if raw.ends(Duration::from_millis(2)).await {
                break;
            }
        }
        if began.elapsed() < over && seen.cut.is_none() {
            (seen.sent, seen.cut) = (sent, Some(u64::try_from(began.elapsed().as_millis())?));
        }
        seen.again += 1;
    }
    Ok(seen)
}

/// What becomes of heads that are too much: 431, or the end of the connection.
async fn header_bomb(plan: &Plan) -> Result<Seen, Failure> {
    let began = Instant::now();
    let mut statuses = Vec::new();
    let over = began + Duration::from_secs(plan.seconds);
    while statuses.is_empty() || Instant::now() < over {
        statuses.clear();
        for (name, count, length) in [("x-", 101, 1), ("cookie", 101, 1), ("x-", 1, 61 * 1024)] {
            statuses.push(oversized(plan.address, name, count, length).await?);
        }
        // Forty megabytes of fields in ten kilobytes.
        let mut raw = Raw::connect(plan.address).await?;
        let bomb = [request("/"), indexed_field("x-bomb", &"x".repeat(3900)), vec![0xbe; 10_000]].concat();
        raw.write.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await?;
        let answered = raw.sync().await.is_some();
        statuses.push(if answered { "answered without the fields".to_owned() } else { "closed".to_owned() });
        sleep(Duration::from_millis(10)).await;
    }
    let held = statuses[..3].iter().all(|status| status == "431" || status == "closed");
    let [fields, cookies, long, by_reference] = &statuses[..] else { return Err("an attack is missing".into()) };
    let note =
        format!("101 fields: {fields}, 101 cookies: {cookies}, 61 KiB: {long}, 40 MB by reference: {by_reference}");
    Ok(Seen { cut: held.then_some(0), note, ..Seen::default() })
}

async fn oversized(address: SocketAddr, name: &str, count: usize, length: usize) -> Result<String, Failure> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(io).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get("http://plain:8080/");
    for number in 0..count {
        // Cookies may all have one name: each is a field of its own.
        let name = if name == "cookie" { name.to_owned() } else { format!("{name}{number}") };
        request = request.header(name, "x".repeat(length));
    }
    let answer = timeout(Duration::from_secs(3), sender.send_request(request.body(Empty::<Bytes>::new())?)).await;
    driver.abort();
    Ok(match answer {
        Ok(Ok(response)) if response.status() == StatusCode::OK => "TAKEN".to_owned(),
        Ok(Ok(response)) => response.status().as_u16().to_string(),
        Ok(Err(_)) => "closed".to_owned(),
        Err(_) => "HANGS".to_owned(),
    })
}

/// Asks for much on every connection, opens all windows, and takes nothing. `seconds` is the server's own patience.
async fn slow_read(plan: &Plan) -> Result<Seen, Failure> {
    const STREAMS: u32 = 50;
    let began = Instant::now();
    let mut open = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    open.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xfe, 0, 0]));
    open.extend((0..STREAMS).flat_map(|number| get(stream(number), "/big")));
    let mut raws = Vec::new();
    for _ in 0..plan.connections {
        let mut raw = Raw::connect(plan.address).await?;
        raw.write.write_all(&open).await?;
        raws.push(raw);
    }
    sleep(Duration::from_secs(plan.seconds + 1)).await;
    // What the kernel holds comes at once, and then the end.
    let mut cut = 0;
    for raw in &mut raws {
        cut += usize::from(raw.ends(Duration::from_secs(1)).await);
    }
    let note = format!("{cut} of {} connections closed", raws.len());
    let all = cut == raws.len();
    Ok(Seen { cut: all.then_some(u64::try_from(began.elapsed().as_millis())?), note, ..Seen::default() })
}

fn slow_head() -> Vec<u8> {
    [&b"GET / HTTP/1.1\r\nhost: plain:8080\r\n"[..], "x-slow: slow\r\n".repeat(100).as_bytes()].concat()
}

fn slow_head2() -> Vec<u8> {
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &[request("/"), field("x-slow", &"x".repeat(900))].concat());
    [crate::frames::START, &head].concat()
}

/// A ClientHello's beginning: a record of 1,000 bytes.
fn slow_handshake() -> Vec<u8> {
    let mut bytes = vec![22, 3, 1, 3, 232, 1, 0, 3, 228, 3, 3];
    bytes.resize(1005, 0);
    bytes
}

/// So many bytes come at once: what is timed has begun by then, in HTTP/2 after the preface and SETTINGS.
const BEGUN: usize = 36;

/// Sends these bytes on every connection, one each second after the first, until all are closed or the time is over.
async fn trickle(plan: &Plan, bytes: Vec<u8>) -> Result<Seen, Failure> {
    let mut open = JoinSet::new();
    for _ in 0..plan.connections {
        let (address, bytes) = (plan.address, bytes.clone());
        open.spawn(timeout(Duration::from_secs(plan.seconds), async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return Duration::ZERO };
            let began = Instant::now();
            let (first, rest) = bytes.split_at(BEGUN);
            let _ = stream.write_all(first).await;
            let mut answer = [0; 4096];
            let mut rest = rest.iter();
            loop {
                match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
                    Ok(Ok(1..)) => {}
                    Ok(_) => break,
                    Err(_) => {
                        let Some(byte) = rest.next() else { break };
                        if stream.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                    }
                }
            }
            began.elapsed()
        }));
    }
    all_closed(plan, open).await
}

/// Begins a body on every connection and says nothing more, until all are closed or the time is over.
async fn silence(plan: &Plan) -> Result<Seen, Failure> {
    let mut open = JoinSet::new();
    for _ in 0..plan.connections {
        let address = plan.address;
        open.spawn(timeout(Duration::from_secs(plan.seconds), async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return Duration::ZERO };
            let began = Instant::now();
            let _ = stream.write_all(b"POST /read HTTP/1.1\r\nhost: plain:8080\r\ncontent-length: 1000\r\n\r\nx").await;
            let mut answer = [0; 4096];
            while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {}
            began.elapsed()
        }));
    }
    all_closed(plan, open).await
}

/// How many connections were closed, and when the last was. Each says how long it lasted.
async fn all_closed(plan: &Plan, mut open: JoinSet<Result<Duration, Elapsed>>) -> Result<Seen, Failure> {
    let (mut closed, mut last) = (0, Duration::ZERO);
    while let Some(done) = open.join_next().await {
        if let Ok(lasted) = done? {
            (closed, last) = (closed + 1, last.max(lasted));
        }
    }
    let note = format!("{closed} of {} connections closed", plan.connections);
    let all = closed == plan.connections;
    Ok(Seen { cut: all.then_some(u64::try_from(last.as_millis())?), note, ..Seen::default() })
}

/// Connects as often as it can, holds on, and lets go; how long after that the server takes another.
async fn connections(plan: &Plan) -> Result<Seen, Failure> {
    let mut dials = JoinSet::new();
    for _ in 0..plan.connections {
        dials.spawn(timeout(Duration::from_secs(plan.seconds), TcpStream::connect(plan.address)));
    }
    sleep(Duration::from_secs(plan.seconds)).await;
    let mut held = Vec::new();
    while let Some(dial) = dials.join_next().await {
        held.extend(dial?.ok().and_then(Result::ok));
    }
    let note = format!("{} connections", held.len());
    drop(held);
    let began = Instant::now();
    // Several ask: a SYN that found the backlog full is sent again after a second, whatever the server does.
    let mut asking = JoinSet::new();
    while began.elapsed() < Duration::from_secs(5) {
        asking.spawn(asks(plan.address));
        while let Ok(Some(answered)) = timeout(Duration::from_millis(50), asking.join_next()).await {
            if matches!(answered, Ok(Ok(()))) {
                return Ok(Seen { cut: Some(u64::try_from(began.elapsed().as_millis())?), note, ..Seen::default() });
            }
        }
    }
    Ok(Seen { note, ..Seen::default() })
}

async fn asks(address: SocketAddr) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: plain:8080\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("no answer".into()) }
}
