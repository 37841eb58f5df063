//! What resources may say, by the numbers of the rules that decide it: the table is `docs/validation.md`.
//!
//! Each list starts from a resource that is taken and changes what its rule is about. A row of `refuses` is refused with
//! exactly the faults it names, and alone: good resources beside it in the response are used, and what was in force stays.
//! A row of `takes` is taken. Rule 0 is Envoy's, where gRPC has no word.

mod cluster;
#[cfg(feature = "file")]
mod dialect;
mod endpoints;
mod envelope;
mod exchange;
mod ext_authz;
mod filters;
mod hostile;
mod jwt;
mod limits;
mod listener;
mod mutations;
mod policies;
mod rbac;
mod route;
mod secret;
mod subsets;
mod table;
mod tls;
mod tls_checks;
mod tls_matches;

use std::fmt::Debug;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::{self, Any};
use prost::Message;

use super::{DecodeResource, Decoded, Decoder, Fault, Registry, SecretServers};
use crate::model::Name;
use crate::resource::TYPE_URL_PREFIX;
use table::Answer;

/// A row that is refused: the rule, the faults' paths inside the changed part with a space between them, and the change.
type Refused<P> = (u32, &'static str, fn(&mut P));
/// A row that is taken: the rule, what is so, and the change.
type Taken<P> = (u32, &'static str, fn(&mut P));

/// A part of a resource: the taken one, how it becomes the resource's bytes, and where it is inside.
struct Part<P> {
    type_url: &'static str,
    base: P,
    wrap: fn(P) -> Vec<u8>,
    path: &'static str,
}

impl<P: Clone> Part<P> {
    fn decode(&self, change: fn(&mut P)) -> Decoded {
        let mut part = self.base.clone();
        change(&mut part);
        decoder().decode(self.type_url, &(self.wrap)(part))
    }

    /// Every row is refused with its faults, and with no other.
    fn refuses(&self, rows: &[Refused<P>]) {
        if let Decoded::Err { faults, .. } = self.decode(|_| {}) {
            panic!("the one to start from is refused: {faults:?}");
        }
        for (rule, paths, change) in rows {
            let expected: Vec<String> = paths.split(' ').map(|path| join(self.path, path)).collect();
            match self.decode(*change) {
                Decoded::Ok { .. } => panic!("rule {rule}: taken, not refused at {expected:?}"),
                Decoded::Err { name, faults } => {
                    let found: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
                    assert_eq!(found, expected, "rule {rule}: {faults:?}");
                    assert!(faults.iter().all(|fault| !fault.rule.is_empty()), "rule {rule}: {faults:?}");
                    self.is_refused_alone(*rule, *change, name.as_deref(), &faults);
                }
            }
            table::shown(*rule, Answer::Refused);
        }
    }

    /// The same over a stream: it becomes bad beside others that are good.
    fn is_refused_alone(&self, rule: u32, change: fn(&mut P), name: Option<&str>, faults: &[Fault]) {
        let bytes = |change: fn(&mut P)| {
            let mut part = self.base.clone();
            change(&mut part);
            exchange::resource(self.type_url, (self.wrap)(part))
        };
        // Where the change is the name itself, nothing was in force under it.
        let same = |decoded| matches!(decoded, Decoded::Ok { name: before, .. } if Some(&*before) == name);
        let before =
            if same(self.decode(|_| {})) { bytes(|_| {}) } else { exchange::good(self.type_url, name.unwrap_or("x")) };
        let says: Vec<String> = faults.iter().map(ToString::to_string).collect();
        exchange::is_refused_alone(
            &format!("rule {rule}"),
            self.type_url,
            Some(before),
            vec![bytes(change)],
            name,
            &says,
        );
    }

    /// Every row is taken.
    fn takes(&self, rows: &[Taken<P>]) {
        for (rule, what, change) in rows {
            if let Decoded::Err { faults, .. } = self.decode(*change) {
                panic!("rule {rule} ({what}): {faults:?}");
            }
            table::shown(*rule, Answer::Taken);
        }
    }

    /// The model of the changed part's resource.
    fn value<T: Send + Sync + 'static>(&self, change: fn(&mut P)) -> Arc<T> {
        taken(self.decode(change))
    }
}

fn join(path: &str, inner: &str) -> String {
    match (path, inner) {
        ("", inner) => inner.to_owned(),
        (path, "") => path.to_owned(),
        (path, inner) => format!("{path}.{inner}"),
    }
}

/// The decoder of these tests: the standard registry, and one certificate provider, which is an SDS server too.
fn decoder() -> Decoder {
    let secrets = SecretServers::new().with_cluster("sds-grpc", "default").with_target("unix:///sds", "default");
    Decoder::new(Arc::new(Registry::standard()), [Name::from("default")]).with_secret_servers(secrets)
}

/// The model of a resource that must be taken.
fn taken<T: Send + Sync + 'static>(decoded: Decoded) -> Arc<T> {
    match decoded {
        Decoded::Ok { value, .. } => value.downcast().expect("the model of another type"),
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    }
}

/// The faults of a resource that must be refused, one text each.
fn refused(decoded: Decoded) -> Vec<String> {
    match decoded {
        Decoded::Ok { name, .. } => panic!("{name} is taken"),
        Decoded::Err { faults, .. } => faults.iter().map(ToString::to_string).collect(),
    }
}

/// The configuration of an extension, downcast.
fn downcast<T: Debug + 'static>(value: &dyn std::any::Any) -> &T {
    value.downcast_ref().expect("the model of another type")
}

fn any<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{}", M::full_name()), value: message.encode_to_vec() }
}

/// An `Any` of this type whose bytes are no message.
fn garbage(type_url: &str) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{type_url}"), value: vec![0xff, 0xff, 0xff] }
}

fn ads() -> core::ConfigSource {
    use core::config_source::ConfigSourceSpecifier;
    core::ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// A configuration source that is not this stream.
fn elsewhere() -> core::ConfigSource {
    use core::config_source::ConfigSourceSpecifier;
    core::ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Path("/etc/xds".to_owned())),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

fn millis(millis: i64) -> Option<protobuf::Duration> {
    let nanos = i32::try_from(millis % 1000 * 1_000_000).expect("less than a second");
    Some(protobuf::Duration { seconds: millis / 1000, nanos })
}

#[allow(clippy::unnecessary_wraps)]
fn u32_value(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

#[allow(clippy::unnecessary_wraps)]
fn bool_value(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

fn socket(ip: &str, port: u32) -> core::Address {
    use core::{address, socket_address};
    core::Address {
        address: Some(address::Address::SocketAddress(core::SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    }
}

fn extension<M: Message + prost::Name>(message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: "x".to_owned(), typed_config: Some(any(message)) }
}

fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn router() -> hcm::HttpFilter {
    http_filter("router", any(&Router::default()))
}

/// A connection manager with routes over RDS, and the router.
fn manager() -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::RouteSpecifier;
    hcm::HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: "routes".to_owned(),
        })),
        http_filters: vec![router()],
        ..Default::default()
    }
}
