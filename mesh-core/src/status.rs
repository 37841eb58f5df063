//! What a client of xDS servers knows, for whoever asks: the content of the client status service (gRFC A40, with the states
//! of A88 and the scopes of A71).
//!
//! Resources and the node stay the bytes that they were on the wire, so that nothing here depends on how xDS is encoded.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::error::Error;
use crate::model::Name;
use crate::resource::ResourceKey;

/// The scope of a client that serves everything in its process.
pub const PROCESS_SCOPE: &str = "process";

/// What is known of a resource: `ClientResourceStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nothing yet.
    Requested,
    /// It does not exist, or was deleted.
    DoesNotExist,
    /// It was taken.
    Acked,
    /// What came last was refused.
    Nacked,
    /// The server said that there is an error with it.
    ReceivedError,
    /// It did not come in time, from a server for which that is a passing fault.
    Timeout,
}

/// All that a mesh's xDS clients know at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfigStatus {
    /// The clients, one for each scope.
    pub clients: Vec<ClientStatus>,
    /// The moment, by both clocks.
    moment: (Instant, SystemTime),
}

impl ConfigStatus {
    /// What `clients` know at a moment, which is told as both clocks have it.
    pub fn new(clients: Vec<ClientStatus>, instant: Instant, wall: SystemTime) -> Self {
        Self { clients, moment: (instant, wall) }
    }

    /// What the wall clock said at `instant`, if it was not set since.
    pub fn wall_time(&self, instant: Instant) -> SystemTime {
        let (now, wall) = self.moment;
        let ahead = instant.saturating_duration_since(now);
        let since = now.saturating_duration_since(instant);
        wall.checked_add(ahead).and_then(|wall| wall.checked_sub(since)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// What one xDS client knows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientStatus {
    /// Whom it serves: [`PROCESS_SCOPE`], or the data plane target that it is for alone. `client_scope` (gRFC A71).
    pub scope: Name,
    /// Who we are: the `envoy.config.core.v3.Node` exactly as servers are told, encoded. `node`.
    pub node: Bytes,
    /// Everything that is wanted. `generic_xds_configs`.
    pub resources: Vec<ResourceStatus>,
}

impl ClientStatus {
    /// A client that serves the whole process.
    pub fn new(node: Bytes, resources: Vec<ResourceStatus>) -> Self {
        Self { scope: PROCESS_SCOPE.into(), node, resources }
    }
}

/// What is known of one resource: `GenericXdsConfig`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Which resource. `type_url`, `name`.
    pub key: ResourceKey,
    /// What is known of it. `client_status`.
    pub state: State,
    /// The version of the value in use. `version_info`.
    pub version: Option<String>,
    /// The value in use, as it came, without the `Any` around it. `xds_config`.
    pub bytes: Option<Bytes>,
    /// When the value in use came. `last_updated`.
    pub updated: Option<Instant>,
    /// When the state was last entered, again into the same one included.
    pub since: Instant,
    /// Whether it was deleted, or a set emptied, and the value is used on for a grace period only.
    pub withdrawn: bool,
    /// What is wrong with it. `error_state`.
    pub failure: Option<UpdateFailure>,
}

/// Why a resource is not up to date: `UpdateFailureState`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpdateFailure {
    /// What is wrong. `details`.
    pub error: Error,
    /// The version of the response that failed; empty if it was none. `version_info`.
    pub version: String,
    /// The resource that was refused, as it came. `failed_configuration`.
    pub bytes: Option<Bytes>,
}

impl UpdateFailure {
    /// This error, of the response with this version.
    pub fn new(error: Error, version: impl Into<String>, bytes: Option<Bytes>) -> Self {
        Self { error, version: version.into(), bytes }
    }
}

/// Tells what the wall clock said at an instant, the same each time it is asked.
///
/// The two clocks are compared once, and again only after the wall clock was set: two dumps of one state have the same times.
#[derive(Debug)]
pub(crate) struct Clocks {
    instant: Instant,
    wall: SystemTime,
}

impl Clocks {
    /// More than this apart from what is expected, the wall clock was set.
    const DRIFT: Duration = Duration::from_secs(1);

    /// Compares them for the first time.
    pub(crate) fn new(instant: Instant, wall: SystemTime) -> Self {
        Self { instant, wall }
    }

    /// A moment to measure from, as both clocks have it.
    pub(crate) fn moment(&mut self, instant: Instant, wall: SystemTime) -> (Instant, SystemTime) {
        let expected = self.wall + instant.saturating_duration_since(self.instant);
        let drift = expected.duration_since(wall).unwrap_or_else(|error| error.duration());
        if drift > Self::DRIFT {
            *self = Self::new(instant, wall);
        }
        (self.instant, self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wall_time_is_as_far_from_the_moment_as_the_instant_on_either_side() {
        let (now, wall) = (Instant::now() + 100 * SECOND, SystemTime::UNIX_EPOCH + 1000 * SECOND);
        let status = ConfigStatus::new(Vec::new(), now, wall);
        assert_eq!(status.wall_time(now - 30 * SECOND), wall - 30 * SECOND);
        assert_eq!(status.wall_time(now + 30 * SECOND), wall + 30 * SECOND);
    }

    #[test]
    fn the_clocks_are_compared_again_only_after_the_wall_clock_was_set() {
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * SECOND);
        let mut clocks = Clocks::new(start, wall);
        let (later, jitter) = (start + 60 * SECOND, Duration::from_millis(3));
        assert_eq!(clocks.moment(later, wall + 60 * SECOND + jitter), (start, wall));
        assert_eq!(clocks.moment(later, wall + 60 * SECOND - jitter), (start, wall));
        let (set_ahead, set_back) = (wall + 3600 * SECOND, wall - 500 * SECOND);
        assert_eq!(clocks.moment(later, set_ahead), (later, set_ahead));
        assert_eq!(clocks.moment(later, set_back), (later, set_back));
    }
}
