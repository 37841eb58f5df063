//! What comes as text, and certificates: files, names, durations.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use mesh_core::bootstrap::Bootstrap;
use mesh_core::decode::{DecodeResource, Decoder, Registry};
use mesh_core::identity::{Sans, SpiffeId};
use mesh_core::model::Name;
use mesh_core::policy::deadline::{format_grpc_timeout, parse_grpc_timeout};
use mesh_core::resource::{XdstpName, canonical_name};
use mesh_core::route::without_port;
use mesh_core::source::file;
use mesh_core::target::Target;
use serde_json::{Map, Value};

use crate::input;

const BOOTSTRAP: &str = include_str!("../samples/bootstrap.json");
const MESH: &str = include_str!("../samples/mesh.yaml");
const RESOURCES: &str = include_str!("../samples/resources.yaml");
/// A certificate with a SPIFFE ID, as DER.
const CERTIFICATE: &[u8] = include_bytes!("../samples/spiffe.der");

// ---- bootstrap ----

/// A good bootstrap with fields changed.
pub(crate) fn bootstrap(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut json: Value = serde_json::from_str(BOOTSTRAP).expect("the sample is JSON");
    for _ in 0..3 {
        if change(&mut json, &mut u).is_err() {
            break;
        }
    }
    read_bootstrap(&json.to_string());
}

/// Any text, and a good one spoiled.
pub(crate) fn bootstrap_text(data: &[u8]) {
    read_bootstrap(&String::from_utf8_lossy(data));
    if let Ok(text) = input::spoil(BOOTSTRAP, &mut Unstructured::new(data)) {
        read_bootstrap(&text);
    }
}

fn read_bootstrap(text: &str) {
    match Bootstrap::from_json(text) {
        Ok(bootstrap) => assert!(!bootstrap.servers.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Changes a value somewhere inside.
pub(super) fn change(value: &mut Value, u: &mut Unstructured<'_>) -> Result<()> {
    match value {
        Value::Object(fields) if !fields.is_empty() && u.ratio(5, 6)? => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let key = u.choose(&keys)?;
            if u.ratio(1, 10)? {
                fields.remove(key);
                return Ok(());
            }
            change(&mut fields[key], u)
        }
        Value::Array(list) if !list.is_empty() && u.ratio(5, 6)? => {
            let at = u.choose_index(list.len())?;
            change(&mut list[at], u)
        }
        other => {
            *other = any_value(3, u)?;
            Ok(())
        }
    }
}

fn any_value(depth: u32, u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => Value::Bool(u.arbitrary()?),
        2 => input::number(u)?.into(),
        3 => Value::from(u.arbitrary::<f64>()?),
        4 => input::text(u)?.into(),
        5 => (0..u.int_in_range(0..=3)?).map(|_| any_value(depth - 1, u)).collect::<Result<Vec<_>>>()?.into(),
        _ => {
            let fields = (0..u.int_in_range(0..=3)?).map(|_| Ok((input::text(u)?, any_value(depth - 1, u)?)));
            Value::Object(fields.collect::<Result<Map<_, _>>>()?)
        }
    })
}

// ---- the YAML file ----

/// Good files, spoiled.
pub(crate) fn file(data: &[u8]) {
    let mut u = Unstructured::new(data);
    for sample in [MESH, RESOURCES] {
        if let Ok(text) = input::spoil(sample, &mut u) {
            read_file(&text);
        }
    }
}

/// Any text.
pub(crate) fn file_text(data: &[u8]) {
    read_file(&String::from_utf8_lossy(data));
    let mut u = Unstructured::new(data);
    let lines: Result<Vec<String>> = (0..20).map(|_| input::text(&mut u)).collect();
    if let Ok(lines) = lines {
        read_file(&lines.join("\n"));
        read_file(&lines.join(": "));
    }
}

fn read_file(text: &str) {
    match file::load(text, "mesh.yaml") {
        Ok(config) => {
            let providers: Vec<Name> = config.certificate_providers.keys().cloned().collect();
            let decoder = Decoder::new(Registry::standard().into(), providers);
            for resource in config.resources {
                // Taken or refused: both are answers.
                let _ = decoder.decode(&resource.key.type_url, &resource.bytes);
            }
        }
        Err(error) => assert!(error.to_string().contains("mesh.yaml"), "{error}"),
    }
}

// ---- names ----

/// SPIFFE IDs, xdstp names, targets and authorities: what is read means itself.
pub(crate) fn names(data: &[u8]) {
    let mut u = Unstructured::new(data);
    read_name(&String::from_utf8_lossy(data));
    let joined: Result<String> = (0..u.int_in_range(1..=6).unwrap_or(1)).map(|_| input::text(&mut u)).collect();
    let Ok(rest) = joined else { return };
    for beginning in ["", "spiffe://a/", "spiffe://", "xdstp://a/t/", "xdstp:", "xds:///", "xds://a/"] {
        read_name(&format!("{beginning}{rest}"));
    }
}

fn read_name(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        assert!(text.len() <= 2048 && !id.trust_domain().is_empty());
    }
    if let Ok(name) = XdstpName::parse(text) {
        let spelled = name.to_string();
        assert_eq!(XdstpName::parse(&spelled).as_ref(), Ok(&name), "{text} is spelled {spelled}");
        assert_eq!(XdstpName::parse(&spelled).expect("just read").to_string(), spelled);
    }
    let once = canonical_name(text);
    assert_eq!(canonical_name(once.clone()), once, "one spelling of {text}");
    assert!(text.starts_with(without_port(text)));
    if let Ok(target) = Target::parse(text) {
        assert!(!target.authority().is_empty(), "{text}");
    }
    // An authority of a request; it may be anything.
    let _ = Target::from_authority(text, false);
}

// ---- durations ----

/// `grpc-timeout`: what is read is what it says, and what is written never says more than was meant.
pub(crate) fn timeouts(data: &[u8]) {
    let _ = parse_grpc_timeout(data);
    let mut u = Unstructured::new(data);
    let Ok((seconds, nanos)) = u.arbitrary::<(u64, u32)>() else { return };
    let long = Duration::new(seconds, nanos % 1_000_000_000);
    for timeout in [long, Duration::from_nanos(seconds), Duration::from_micros(nanos.into())] {
        let text = format_grpc_timeout(timeout);
        let read = parse_grpc_timeout(text.as_bytes()).unwrap_or_else(|| panic!("{text} cannot be read"));
        assert!(read <= timeout || timeout.is_zero(), "{timeout:?} is written {text}");
    }
}

// ---- certificates ----

/// Names in certificates: any bytes, and a good certificate spoiled.
pub(crate) fn certificate(data: &[u8]) {
    let _ = Sans::read(data);
    let mut bytes = CERTIFICATE.to_vec();
    if input::spoil_bytes(&mut bytes, &mut Unstructured::new(data)).is_ok() {
        let _ = Sans::read(&bytes);
    }
}
