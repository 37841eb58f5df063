//! Every fact of the configuration's way worth observing, as a typed event.
//!
//! The code that finds a fact says it once, here; whoever observes (log, metrics) decides how it looks. What happens on a
//! request's way is observed by `mesh-tower` with the request at hand.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::line::{Version, one_line};
use crate::model::Name;

/// Receives events. Called on the configuration thread; it must not block.
pub trait EventSink: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// A fact about configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The stream to a server is open.
    Connected {
        /// The server's URI.
        server: Name,
    },
    /// The stream to a server could not be opened, or ended without an answer.
    ConnectivityLost {
        /// The server's URI.
        server: Name,
        /// Why.
        reason: String,
    },
    /// A response was taken as a whole.
    Accepted {
        /// The server's URI.
        server: Name,
        /// What the process that answered calls itself (`control_plane.identifier`), cut where it is long; None where it
        /// says nothing. Behind one URI there may be many.
        control_plane: Option<Name>,
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The response's version.
        version: String,
        /// How many resources it held.
        resources: usize,
    },
    /// A response had resources that were refused; the others were applied (gRFC A46).
    Rejected {
        /// The server's URI.
        server: Name,
        /// What the process that answered calls itself (`control_plane.identifier`), cut where it is long; None where it
        /// says nothing. Behind one URI there may be many.
        control_plane: Option<Name>,
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The response's version.
        version: String,
        /// What the NACK says: every refused resource with its faults.
        reason: String,
    },
    /// A resource was deleted, or never came.
    Missing {
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The resource.
        name: Name,
    },
    /// A resource that is in use was deleted, or a set emptied. It is used on for a grace period, so that a control plane's
    /// slip does not stop traffic.
    Withdrawn {
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The resource.
        name: Name,
        /// What became of it.
        how: Withdrawal,
        /// For how long it is used on; None: for ever.
        grace: Option<Duration>,
    },
    /// What was withdrawn came back within its grace: nothing was lost.
    Restored {
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The resource.
        name: Name,
    },
    /// What was withdrawn did not come back within its grace: it is no longer used, and requests that need it fail.
    Lapsed {
        /// The type, without `type.googleapis.com/`.
        type_url: Name,
        /// The resource.
        name: Name,
    },
    /// A configuration was put in force.
    Published {
        /// The target or listening address.
        target: Name,
        /// The configuration's number.
        version: u64,
    },
    /// A target has no configuration (any more).
    Unpublished {
        /// The target or listening address.
        target: Name,
        /// Why.
        reason: String,
    },
    /// A resource asks for something that is left out.
    LeftOut {
        /// The resource.
        resource: Name,
        /// The field.
        field: String,
    },
    /// A message from a server could not be read at all.
    Garbage {
        /// The server's URI.
        server: Name,
        /// Why.
        reason: String,
    },
    /// A server said what load it wants to be told of, and is told from now on (`spec` section 2.14).
    LoadReporting {
        /// The server's URI.
        server: Name,
    },
    /// The load reporting stream to a server could not be opened, or ended without a word. Requests go on being counted.
    LoadReportsLost {
        /// The server's URI.
        server: Name,
        /// Why.
        reason: String,
    },
    /// No control plane can be reached, and the last good configuration of an earlier process is in use.
    LastGoodUsed {
        /// How old it was when this process started.
        age: Duration,
    },
    /// The last good configuration of an earlier process, or a resource of it, cannot be used.
    LastGoodRefused {
        /// File and reason.
        reason: String,
    },
    /// The last good configuration cannot be kept for a later process.
    LastGoodNotKept {
        /// File and reason.
        reason: String,
    },
    /// A certificate with its key, or roots, were taken: the first ones, or by rotation.
    CertificateTaken {
        /// The provider's instance name; with `/` and the certificate's name behind it where a provider has several.
        certificate: Name,
        /// Which part.
        material: Material,
        /// The names in the certificate.
        names: String,
        /// When it ends; of roots, when the last of a trust domain does.
        not_after: SystemTime,
    },
    /// Three quarters of a certificate's life are over, or a month is left, and it was not renewed. Said again when a tenth, or
    /// three days, are left.
    CertificateExpiring {
        /// As in [`CertificateTaken`](Self::CertificateTaken).
        certificate: Name,
        /// Which part.
        material: Material,
        /// The names in the certificate.
        names: String,
        /// How long it is good.
        left: Duration,
    },
    /// A certificate was not renewed in time: handshakes fail.
    CertificateExpired {
        /// As in [`CertificateTaken`](Self::CertificateTaken).
        certificate: Name,
        /// Which part.
        material: Material,
        /// The names in the certificate.
        names: String,
    },
    /// A certificate cannot be had, or renewed. What is there is used on.
    CertificateTrouble {
        /// Which: the source and the certificate's name.
        certificate: Name,
        /// Why.
        reason: String,
    },
    /// The configuration file was changed and cannot be used; the last good one stays in force.
    FileRefused {
        /// File, line and reason.
        reason: String,
    },
}

/// A part of what TLS needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Material {
    /// Our certificate and its key.
    Identity,
    /// Whom to trust.
    Roots,
}

impl Material {
    /// As one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Roots => "roots",
        }
    }
}

impl fmt::Display for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a resource that is in use was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Withdrawal {
    /// It was deleted.
    Deleted,
    /// It is there, with nothing in it: an endpoint set without an endpoint.
    Emptied,
}

impl Withdrawal {
    /// As one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Emptied => "emptied",
        }
    }
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Event {
    /// One line, whatever servers call things.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell(&mut one_line(f))
    }
}

impl Event {
    fn tell(&self, f: &mut impl Write) -> fmt::Result {
        match self {
            Self::Connected { server } => write!(f, "connected to xDS server {server}"),
            Self::ConnectivityLost { server, reason } => write!(f, "xDS server {server} cannot be reached: {reason}"),
            Self::Accepted { server, control_plane, type_url, version, resources } => {
                let (who, version) = (Answering(server, control_plane.as_ref()), Version(version));
                write!(f, "took {resources} {type_url} version `{version}` from {who}")
            }
            Self::Rejected { server, control_plane, type_url, version, reason } => {
                let (who, version) = (Answering(server, control_plane.as_ref()), Version(version));
                write!(f, "refused part of {type_url} version `{version}` from {who}: {reason}")
            }
            Self::Missing { type_url, name } => write!(f, "{type_url} `{name}` does not exist"),
            Self::Withdrawn { type_url, name, how, grace: Some(grace) } => {
                write!(f, "{type_url} `{name}` was {how}; what was there is used on for {grace:?}")
            }
            Self::Withdrawn { type_url, name, how, grace: None } => {
                write!(f, "{type_url} `{name}` was {how}; what was there is used on")
            }
            Self::Restored { type_url, name } => write!(f, "{type_url} `{name}` is back within its grace"),
            Self::Lapsed { type_url, name } => {
                write!(f, "{type_url} `{name}` did not come back within its grace and is no longer used")
            }
            Self::Published { target, version } => write!(f, "configuration {version} of `{target}` is in force"),
            Self::Unpublished { target, reason } => write!(f, "`{target}` has no configuration: {reason}"),
            Self::LeftOut { resource, field } => write!(f, "`{resource}`: {field} is not supported and is left out"),
            Self::Garbage { server, reason } => write!(f, "ignored an unreadable message from {server}: {reason}"),
            Self::LoadReporting { server } => write!(f, "reporting load to xDS server {server}"),
            Self::LoadReportsLost { server, reason } => {
                write!(f, "load cannot be reported to xDS server {server}: {reason}")
            }
            Self::LastGoodUsed { age } => write!(
                f,
                "no control plane can be reached: the last good configuration of an earlier process is in use, {} min old",
                age.as_secs() / 60
            ),
            Self::LastGoodRefused { reason } => {
                write!(f, "the last good configuration of an earlier process is not used: {reason}")
            }
            Self::LastGoodNotKept { reason } => {
                write!(f, "the last good configuration is not kept for a later process: {reason}")
            }
            Self::CertificateTaken { certificate, material, names, not_after } => {
                let until = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                write!(f, "took {material} of `{certificate}` {names}, good until {until} s of Unix time")
            }
            Self::CertificateExpiring { certificate, material, names, left } => write!(
                f,
                "{material} of `{certificate}` {names} was not renewed and expires in {} min: find out why",
                left.as_secs() / 60
            ),
            Self::CertificateExpired { certificate, material, names } => {
                write!(f, "{material} of `{certificate}` {names} has expired: handshakes fail")
            }
            Self::CertificateTrouble { certificate, reason } => {
                write!(f, "{certificate} cannot be had or renewed, and what is there is used on: {reason}")
            }
            Self::FileRefused { reason } => write!(f, "kept the last good configuration file: {reason}"),
        }
    }
}

/// A server, and which process of it answered.
struct Answering<'a>(&'a Name, Option<&'a Name>);

impl fmt::Display for Answering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(server, control_plane) = self;
        write!(f, "{server}")?;
        control_plane.map_or(Ok(()), |name| write!(f, " (control plane `{name}`)"))
    }
}

/// Writes every event as a `tracing` line: faults as warnings, the rest as information.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogSink;

impl EventSink for LogSink {
    fn event(&self, event: &Event) {
        match event {
            Event::Connected { .. }
            | Event::Accepted { .. }
            | Event::Restored { .. }
            | Event::Published { .. }
            | Event::CertificateTaken { .. }
            | Event::LoadReporting { .. } => {
                tracing::info!(target: "mesh", "{event}");
            }
            _ => tracing::warn!(target: "mesh", "{event}"),
        }
    }
}

/// Sends every event to several sinks.
#[derive(Clone, Default)]
pub struct Fanout(Vec<Arc<dyn EventSink>>);

impl Fanout {
    /// To all of `sinks`, in order.
    pub fn new(sinks: Vec<Arc<dyn EventSink>>) -> Self {
        Self(sinks)
    }
}

impl EventSink for Fanout {
    fn event(&self, event: &Event) {
        for sink in &self.0 {
            sink.event(event);
        }
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fanout").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_write_a_second_line_into_the_log() {
        let server: Name = "plane:1".into();
        let took = |version: &str| Event::Accepted {
            server: server.clone(),
            control_plane: None,
            type_url: "T".into(),
            version: version.to_owned(),
            resources: 1,
        };
        assert_eq!(took("v1").to_string(), "took 1 T version `v1` from plane:1");
        assert_eq!(took("1\nERROR all is lost").to_string(), "took 1 T version `1\\nERROR all is lost` from plane:1");
        let long = took(&"9".repeat(100_000)).to_string();
        assert!(long.len() < 200 && long.ends_with("…` from plane:1"), "{} bytes", long.len());
        let (type_url, name) = ("T".into(), "a\u{1b}[31m".into());
        assert_eq!(Event::Missing { type_url, name }.to_string(), "T `a\\u{1b}[31m` does not exist");
    }
}
