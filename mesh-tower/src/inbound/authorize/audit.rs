//! The audit log on standard output (gRFC A59): whoever reads it slowly, or not at all, must not hold up a request.
//!
//! Records go through a bounded queue to one thread, which writes them. A record that finds the queue full is lost, and how
//! many were is said in the program's log: a log that stops all requests is a way to stop a service.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

/// Records on their way: at 200 bytes each, under a megabyte.
const ROOM: usize = 4096;

/// The process's log.
static STDOUT: OnceLock<AuditLog> = OnceLock::new();

/// The log on standard output.
pub(super) fn log() -> &'static AuditLog {
    STDOUT.get_or_init(|| AuditLog::new(std::io::stdout(), ROOM, tell))
}

/// Returns once what was said so far is written. A process that ends before loses it.
pub(crate) async fn written() {
    // Whoever has never written has nothing to wait for, and needs no thread.
    if let Some(log) = STDOUT.get() {
        log.written().await;
    }
}

/// A log with its thread.
pub(super) struct AuditLog {
    queue: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line(String),
    /// Tell when everything before is written.
    Mark(oneshot::Sender<()>),
}

impl AuditLog {
    fn new(out: impl Write + Send + 'static, room: usize, tell: fn(u64)) -> Self {
        let (queue, entries) = sync_channel(room);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        let thread = std::thread::Builder::new().name("mesh-audit".to_owned());
        // Without a thread the queue is closed, and every record counts as lost.
        if let Err(error) = thread.spawn(move || run(out, &entries, &counted, tell)) {
            tracing::error!(target: "mesh", "there is no audit log, as no thread can be started: {error}");
        }
        Self { queue, lost }
    }

    /// Has a record written. It never waits.
    pub(super) fn write(&self, line: String) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(Entry::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn written(&self) {
        let (mark, done) = oneshot::channel();
        let queue = self.queue.clone();
        // A full queue must not hold up the runtime either.
        let sent = tokio::task::spawn_blocking(move || queue.send(Entry::Mark(mark)).is_ok()).await;
        if sent.unwrap_or(false) {
            let _ = done.await;
        }
    }
}

fn run(mut out: impl Write, entries: &Receiver<Entry>, lost: &AtomicU64, tell: fn(u64)) {
    for entry in entries {
        match entry {
            // Nobody can be told that the log itself is closed but the program's own log.
            Entry::Line(line) => {
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Entry::Mark(done) => drop(done.send(())),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => tell(count),
        }
    }
}

fn tell(count: u64) {
    tracing::warn!(target: "mesh", "{count} records of the audit log are lost: standard output is closed or too slow");
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    static TOLD: Mutex<Vec<u64>> = Mutex::new(Vec::new());

    /// A reader that takes a line only when it is told to.
    struct Slow {
        lines: Arc<Mutex<Vec<u8>>>,
        started: Sender<()>,
        go: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if bytes.ends_with(b"}") {
                let _ = self.started.send(());
                // Closed, it takes everything.
                let _ = self.go.recv();
            }
            self.lines.lock().expect("nobody panics").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// gRFC A59.
    #[tokio::test]
    async fn a_slow_reader_holds_up_nobody_and_what_is_lost_is_told() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let ((started, begun), (hold, go)) = (channel(), channel());
        let slow = Slow { lines: lines.clone(), started, go };
        let log = AuditLog::new(slow, 2, |count| TOLD.lock().expect("nobody panics").push(count));
        log.write("{0}".to_owned());
        begun.recv().expect("the thread writes");
        // Two wait, and two find no room.
        (1..5).for_each(|number| log.write(format!("{{{number}}}")));
        drop(hold);
        log.written().await;
        assert_eq!(String::from_utf8_lossy(&lines.lock().unwrap()), "{0}\n{1}\n{2}\n");
        assert_eq!(*TOLD.lock().unwrap(), [2]);
    }
}
