//! An attacker, as a process: what it is told to do, and what it saw.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_examples::Failure;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::attacks;
use crate::frames::{ACK, PING, START, frame};

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// For how long.
    pub(crate) seconds: u64,
    /// At how many connections, where there are many.
    pub(crate) connections: usize,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Requests, each reset at once.
    RapidReset,
    /// The same, where the request is being handled by then.
    LateReset,
    Ping,
    Settings,
    Priority,
    WindowUpdate,
    EmptyData,
    /// DATA of one byte each, which nobody reads.
    TinyData,
    /// Requests that the server itself resets, each for a mistake.
    MadeReset,
    Unknown,
    /// A head in ever more frames.
    Continuation,
    /// Too many header fields, too many cookies, too long ones, and one that is referred to ten thousand times.
    HeaderBomb,
    /// Answers that are never taken.
    SlowRead,
    /// Heads of HTTP/1, a byte each second.
    SlowHead,
    /// Heads of HTTP/2, a byte each second.
    SlowHead2,
    /// Bodies that begin and do not go on.
    SlowBody,
    /// TLS handshakes, a byte each second.
    SlowHandshake,
    /// Connections, until there are no more descriptors.
    Connections,
}

/// What it saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// What it sent until it was cut the first time: frames, or bytes.
    pub(crate) sent: u64,
    /// How long after its first byte it was cut, in milliseconds; None: it never was.
    pub(crate) cut: Option<u64>,
    /// How often it came back and was cut again.
    pub(crate) again: u64,
    /// What else there is to say.
    pub(crate) note: String,
}

/// Does what `plan` says, and prints what it saw.
pub(crate) async fn run(plan: &str) -> Result<(), Failure> {
    let seen = attacks::run(&serde_json::from_str(plan)?).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&seen)?)?;
    Ok(out.flush()?)
}

/// How long the server may take to say that it has read what was sent.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection on which HTTP/2 has begun.
pub(crate) struct Raw {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
    seen: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        write.write_all(START).await?;
        Ok(Self { read, write, seen: Vec::new() })
    }

    /// Whether the server has read everything until here: a PING comes back. None: the connection has ended.
    pub(crate) async fn sync(&mut self) -> Option<()> {
        self.write.write_all(&frame(PING, 0, 0, b"are you?")).await.ok()?;
        let answer = frame(PING, ACK, 0, b"are you?");
        let came = timeout(PATIENCE, async {
            loop {
                if let Some(at) = self.seen.windows(answer.len()).position(|bytes| bytes == answer) {
                    self.seen.drain(..at + answer.len());
                    return Some(());
                }
                if self.read.read_buf(&mut self.seen).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        });
        came.await.unwrap_or(Some(()))
    }

    /// Reads until the end, for so long at most; whether it came.
    pub(crate) async fn ends(&mut self, within: Duration) -> bool {
        let mut ignored = vec![0; 64 * 1024];
        let end = async { while self.read.read(&mut ignored).await.is_ok_and(|read| read > 0) {} };
        timeout(within, end).await.is_ok()
    }
}

/// Sends frames without end, `unit` of them after `open`, and comes back when it is cut; for so long. How many the server had
/// read when it cut is known to a tenth of the budget.
pub(crate) async fn hammer(
    plan: &Plan,
    open: &[u8],
    unit: impl Fn(u32) -> Vec<u8>,
    patient: bool,
) -> Result<Seen, Failure> {
    const BATCH: u32 = 100;
    const MOST: u32 = 100_000;
    let (mut seen, began) = (Seen::default(), Instant::now());
    // Once step by step, to see how far it comes.
    let mut raw = Raw::connect(plan.address).await?;
    raw.write.write_all(open).await?;
    for batch in 0..MOST / BATCH {
        let bytes: Vec<u8> = (batch * BATCH..(batch + 1) * BATCH).flat_map(&unit).collect();
        if raw.write.write_all(&bytes).await.is_err() || raw.sync().await.is_none() {
            seen.cut = Some(u64::try_from(began.elapsed().as_millis())?);
            break;
        }
        seen.sent += u64::from(BATCH);
    }
    // Then as fast as it goes.
    let over = Instant::now() + Duration::from_secs(plan.seconds);
    while Instant::now() < over {
        let Ok(Raw { mut read, mut write, .. }) = Raw::connect(plan.address).await else { continue };
        let drained = tokio::spawn(async move {
            let mut ignored = vec![0; 64 * 1024];
            while read.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
        });
        let _ = write.write_all(open).await;
        let mut number = 0;
        while Instant::now() < over {
            let bytes: Vec<u8> = (number..number + BATCH).flat_map(&unit).collect();
            number += BATCH;
            if write.write_all(&bytes).await.is_err() || number >= MOST * 10 {
                break;
            }
            if patient {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        seen.again += u64::from(number < MOST * 10 && Instant::now() < over);
        drained.abort();
    }
    Ok(seen)
}
