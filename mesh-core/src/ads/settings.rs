//! What can be set about the client, with the reason for each default.

use std::time::Duration;

/// What can be set about an xDS client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// How long a server may take to say something about a resource, from the moment the request is written: 15 s, as in
    /// gRFC A57.
    pub resource_timeout: Duration,
    /// The same for a server with `resource_timer_is_transient_error`: 30 s, as in gRFC A88.
    pub transient_resource_timeout: Duration,
    /// How long a connection may take to stand: 10 s, so that a second server is tried before a request's patience ends.
    pub connect_timeout: Duration,
    /// How long a first subscription waits for any control plane before it is told that there is none: 15 s.
    pub patience: Duration,
    /// How long a stream without subscriptions is kept: 5 min, the shorter end of what gRFC A47 suggests.
    pub idle_timeout: Duration,
    /// How long a deleted resource, and an endpoint set that was emptied, stays in use: 30 s by default, so that a control
    /// plane's slip does not stop traffic. Zero is gRPC's old behaviour; None, for ever, is that of gRFC A88. A server's
    /// `fail_on_data_errors` means zero, its `ignore_resource_deletion` means None for what is deleted.
    pub deletion_grace: Option<Duration>,
    /// What is asked for from a server that is fallen back to.
    pub fallback_scope: FallbackScope,
    /// How long to wait before a stream is opened again.
    pub backoff: BackoffSettings,
}

/// What is asked for from a server that is fallen back to (gRFC A71).
///
/// In either case each server has one stream, and a target falls back, with all that it uses, only when it misses something
/// itself: the others stay on what they have from the preferred server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FallbackScope {
    /// Everything that is wanted in this mesh: what another target misses next is there already. (A process has one mesh; another
    /// one would have streams of its own.)
    #[default]
    Process,
    /// What the targets that fell back use: the least load on the server, as gRPC's `XdsClient` per target has it.
    Target,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resource_timeout: Duration::from_secs(15),
            transient_resource_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(300),
            deletion_grace: Some(Duration::from_secs(30)),
            fallback_scope: FallbackScope::Process,
            backoff: BackoffSettings::default(),
        }
    }
}

/// How long to wait before a stream is opened again: `initial`, then `multiplier` times more each time, up to a cap that
/// depends on how long the outage has lasted.
#[derive(Debug, Clone, PartialEq)]
pub struct BackoffSettings {
    /// The first wait: 1 s.
    pub initial: Duration,
    /// How much longer each wait is than the one before: 1.6.
    pub multiplier: f64,
    /// The longest wait while the outage is young: 2 s, so that a restarted control plane is found at once.
    pub early_cap: Duration,
    /// How long an outage is young: 1 min.
    pub early: Duration,
    /// The longest wait after that: 30 s.
    pub cap: Duration,
    /// How waits are spread: over their whole length by default, so that clients that lost a server together do not come
    /// back together.
    pub jitter: Jitter,
}

/// How waits are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// Between zero and the wait.
    Full,
    /// By this share of the wait up and down; 0.2 in gRPC.
    Share(f64),
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 1.6,
            early_cap: Duration::from_secs(2),
            early: Duration::from_secs(60),
            cap: Duration::from_secs(30),
            jitter: Jitter::Full,
        }
    }
}

impl BackoffSettings {
    /// gRFC A57's: 1 s, 1.6 times more each time, at most 120 s, 20 % up and down.
    pub fn grpc() -> Self {
        let cap = Duration::from_secs(120);
        Self { early_cap: cap, cap, jitter: Jitter::Share(0.2), ..Self::default() }
    }
}
