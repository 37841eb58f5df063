//! The rows, and how one is measured.

use std::time::Duration;

use mesh_core::bootstrap::Bootstrap;
use mesh_examples::Failure;
use mesh_examples::load::{self, Call, Pace, Tally};
use mesh_examples::memory::Resident;
use mesh_examples::part::Part;
use mesh_examples::row::{Row, lost, ms};
use mesh_tower::Mesh;

use crate::attack::{Kind, Plan, Seen};
use crate::server::{Served, limits};

/// The good client's requests in a second.
const RPS: u32 = 200;
/// It may wait so many times longer.
const SLOWER: u64 = 2;
/// The server's memory may grow so much, in MiB.
const GROWS: u64 = 16;
/// After its budget, a flood may last so long, in milliseconds.
const LATE: u64 = 1000;

/// One kind of flood.
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    kind: Kind,
    budget: Budget,
}

/// What a flood may come to before it is cut.
enum Budget {
    /// So many frames.
    Frames(u64),
    /// So many bytes.
    Bytes(u64),
    /// As long as this timeout of the server's.
    Time(fn(&mesh_tower::inbound::InboundLimits) -> Duration),
    /// Each of its parts is answered or closed at once.
    Refused,
    /// The server takes connections again within a second.
    Recovers,
}

const fn frames(name: &'static str, what: &'static str, kind: Kind) -> Flood {
    Flood { name, what, kind, budget: Budget::Frames(1100) }
}

/// Every flood.
pub(crate) const ROWS: [Flood; 18] = [
    frames("rapid-reset", "rapid reset (CVE-2023-44487)", Kind::RapidReset),
    frames("late-reset", "resets of requests that are being handled", Kind::LateReset),
    frames("ping", "PING (CVE-2019-9512)", Kind::Ping),
    frames("settings", "SETTINGS (CVE-2019-9515)", Kind::Settings),
    frames("priority", "PRIORITY (CVE-2019-9513)", Kind::Priority),
    frames("window-update", "WINDOW_UPDATE", Kind::WindowUpdate),
    frames("empty-data", "DATA without data (CVE-2019-9518)", Kind::EmptyData),
    Flood {
        name: "tiny-data",
        what: "DATA of one byte each, which nobody reads",
        kind: Kind::TinyData,
        // h2's: half a mebibyte of what each frame is shorter than 256 bytes.
        budget: Budget::Frames(2200),
    },
    frames("made-reset", "requests that the server resets for a mistake (CVE-2025-8671)", Kind::MadeReset),
    frames("unknown", "frames of an unknown type", Kind::Unknown),
    Flood {
        name: "continuation",
        what: "CONTINUATION (CVE-2024-27316)",
        kind: Kind::Continuation,
        budget: Budget::Bytes(64 * 1024),
    },
    Flood { name: "header-bomb", what: "header bombs", kind: Kind::HeaderBomb, budget: Budget::Refused },
    Flood {
        name: "slow-read",
        what: "answers that are never taken",
        kind: Kind::SlowRead,
        budget: Budget::Time(|limits| limits.write_timeout),
    },
    Flood {
        name: "slow-head",
        what: "heads of HTTP/1, a byte each second",
        kind: Kind::SlowHead,
        budget: Budget::Time(|limits| limits.header_timeout),
    },
    Flood {
        name: "slow-head-2",
        what: "heads of HTTP/2, a byte each second",
        kind: Kind::SlowHead2,
        budget: Budget::Time(|limits| limits.header_timeout),
    },
    Flood {
        name: "slow-body",
        what: "bodies that begin and do not go on",
        kind: Kind::SlowBody,
        budget: Budget::Time(|limits| limits.body_timeout.unwrap_or(Duration::MAX)),
    },
    Flood {
        name: "slow-handshake",
        what: "TLS handshakes, a byte each second",
        kind: Kind::SlowHandshake,
        budget: Budget::Time(|limits| limits.handshake_timeout),
    },
    Flood {
        name: "connections",
        what: "connections to a server with 256 descriptors",
        kind: Kind::Connections,
        budget: Budget::Recovers,
    },
];

/// What the good client and the server's memory had of it.
struct Beside {
    quiet: Tally,
    under: Tally,
    grew: u64,
    runs: bool,
}

impl Flood {
    /// Starts a server and a good client, floods, and says what became of it.
    pub(crate) async fn measure(&self, quick: bool) -> Result<Row, Failure> {
        let mut arguments = vec!["server"];
        arguments.extend(quick.then_some("--quick"));
        let few = matches!(self.kind, Kind::Connections);
        let mut server =
            if few { Part::start_after("ulimit -n 256", &arguments).await? } else { Part::start(&arguments).await? };
        let served: Served = serde_json::from_str(&server.line().await?)?;
        let mesh = Mesh::builder().bootstrap(Bootstrap::from_json(&served.bootstrap)?).build()?;
        let (target, address) = match self.kind {
            Kind::SlowHandshake => ("http://tls:8080/", served.tls),
            _ => ("http://plain:8080/", served.plain),
        };
        let call = Call::http(&mesh, target, Duration::from_secs(5))?;
        let quiet_for = Duration::from_secs(if quick { 1 } else { 4 });
        load(&call, Duration::from_secs(1)).await;
        let mut quiet = load(&call, quiet_for).await;
        let id = server.id().ok_or("the server has ended")?.to_string();
        let before = Resident::of(&id)?.now;
        Resident::forget_peak(&id)?;
        let plan = self.plan(address, quick);
        let background = tokio::spawn({
            let (call, lasts) = (call.clone(), Duration::from_secs(plan.seconds + 1));
            async move { load(&call, lasts).await }
        });
        let plan = serde_json::to_string(&plan)?;
        let mut attacker = Part::start_after("renice -n 19 $$ >/dev/null", &["attack", &plan]).await?;
        let seen: Seen = serde_json::from_str(&attacker.line().await?)?;
        let under = background.await?;
        let grew = Resident::of(&id)?.peak.saturating_sub(before);
        quiet.merge(&load(&call, quiet_for).await);
        quiet.sort();
        let runs = server.runs();
        Ok(self.row(quick, &seen, &Beside { quiet, under, grew, runs }))
    }

    fn plan(&self, address: std::net::SocketAddr, quick: bool) -> Plan {
        let seconds = match &self.budget {
            // The attackers' own patience is longer than what the server promises, by as long as they take to connect, too.
            Budget::Time(of) if self.kind != Kind::SlowRead => of(&limits(quick)).as_secs() + 5,
            Budget::Time(of) => of(&limits(quick)).as_secs(),
            _ if quick => 1,
            _ => 5,
        };
        let connections = match (self.kind, quick) {
            (Kind::SlowRead, true) => 4,
            (Kind::SlowRead, false) => 10,
            (_, true) => 200,
            // Each is a request that the application has been given.
            (Kind::SlowBody, false) => 500,
            _ => 1000,
        };
        let connections = if self.kind == Kind::Connections { 1000 } else { connections };
        Plan { kind: self.kind, address, seconds, connections }
    }

    /// What the budget is, what came of it, and whether it holds.
    fn judged(&self, quick: bool, seen: &Seen) -> (String, String, bool) {
        let cut = seen.cut.map_or_else(|| "NOT CUT".to_owned(), |after| format!("{after} ms"));
        match &self.budget {
            Budget::Frames(most) => (
                format!("{most} frames"),
                format!("cut after {} frames, {cut}; then {} times more", seen.sent, seen.again),
                seen.cut.is_some_and(|after| after <= LATE) && seen.sent <= *most && seen.again > 0,
            ),
            Budget::Bytes(most) => (
                format!("{} KiB", most / 1024),
                format!("cut after {} KiB, {cut}; then {} times more", seen.sent / 1024, seen.again),
                seen.cut.is_some_and(|after| after <= LATE) && seen.sent <= *most,
            ),
            Budget::Time(of) => {
                let limit = of(&limits(quick));
                let most = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).saturating_add(LATE);
                // A slow reader sees its end when it begins to read, a second later.
                let most = if self.kind == Kind::SlowRead { most + LATE } else { most };
                let held = seen.cut.is_some_and(|after| after <= most);
                (format!("{limit:?}"), format!("{}: {cut}", seen.note), held)
            }
            Budget::Refused => ("431 or closed".to_owned(), seen.note.clone(), seen.cut.is_some()),
            Budget::Recovers => (
                "accepts again in 1 s".to_owned(),
                format!("{}; accepts again after {cut}", seen.note),
                seen.cut.is_some_and(|after| after <= LATE),
            ),
        }
    }

    fn row(&self, quick: bool, seen: &Seen, beside: &Beside) -> Row {
        let (budget, measured, held) = self.judged(quick, seen);
        let (calm, busy) = (beside.quiet.quantile(0.99), beside.under.quantile(0.99));
        let measured = format!(
            "{measured}; good client: {}, p99 {} (quiet {}); memory +{} MiB",
            lost(&beside.under),
            ms(busy),
            ms(calm),
            beside.grew
        );
        // Times are not asked when it is to be quick: other programs run then.
        let unharmed = beside.runs && beside.under.lost == 0 && beside.under.ok > 0;
        let holds = held && unharmed && beside.grew <= GROWS && (quick || busy <= SLOWER * calm);
        let bound = format!("{budget}, then cut within 1 s; 0 lost, p99 2x quiet at most, 16 MiB more at most");
        Row::new(format!("flood: {}", self.what), measured, &bound, holds)
    }
}

async fn load(call: &Call, duration: Duration) -> Tally {
    load::run(call.clone(), Pace { rps: RPS, duration, in_flight: 1000 }).await
}
