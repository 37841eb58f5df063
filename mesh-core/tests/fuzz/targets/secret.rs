//! Answers of a secret discovery service: good secrets spoiled, by their fields and by the text inside, over a stream.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arbitrary::{Result, Unstructured};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::ads::{Engine, ResourceTypes, ServerId, Settings};
use mesh_core::bootstrap::{Node, ServerConfig};
use mesh_core::decode::{DecodeResource, Decoded, SecretDecoder};
use mesh_core::identity::{Secret, Slot};
use mesh_core::resource::{ResourceEvent, ResourceKey, SECRET, TYPE_URL_PREFIX};
use prost::Message;
use prost_reflect::DynamicMessage;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::{generate, input};

/// A certificate and its key.
static PEM: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("there is randomness");
    let params = CertificateParams::new(vec!["a.test".to_owned()]).expect("it is a name");
    (params.self_signed(&key).expect("the key signs").pem(), key.serialize_pem())
});

pub(crate) fn secrets(data: &[u8]) {
    // Where the bytes end, so does the case.
    let _ = run(&mut Unstructured::new(data));
}

/// Whether what these bytes make of a good secret is taken.
pub(crate) fn is_taken(data: &[u8]) -> bool {
    let secret = spoiled(&mut Unstructured::new(data));
    secret.is_ok_and(|bytes| matches!(decoder().decode(SECRET, &bytes), Decoded::Ok { .. }))
}

fn decoder() -> SecretDecoder {
    // Which keys belong to which certificates is not the decoder's to know.
    SecretDecoder::new(Arc::new(|chain, _| !chain.is_empty()))
}

fn spoiled(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut text = |pem: &str| -> Result<String> {
        let mut bytes = pem.as_bytes().to_vec();
        if u.ratio(1, 3)? {
            input::spoil_bytes(&mut bytes, u)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (chain, key, roots) = (text(&PEM.0)?, text(&PEM.1)?, text(&PEM.0)?);
    let secret = if u.arbitrary()? {
        json!({"name": "sample", "tls_certificate": {
            "certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}})
    } else {
        json!({"name": "sample", "validation_context": {
            "trusted_ca": {"inline_string": roots},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}],
            "verify_certificate_hash": ["0f".repeat(32)],
            "max_verify_depth": 2,
        }})
    };
    let of = generate::descriptor(SECRET);
    let mut message = DynamicMessage::deserialize(of, secret).expect("it is a secret");
    if u.ratio(1, 2)? {
        generate::spoil(&mut message, u)?;
    }
    let mut bytes = message.encode_to_vec();
    if u.ratio(1, 10)? {
        input::spoil_bytes(&mut bytes, u)?;
    }
    Ok(bytes)
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut engine, now) = (engine(), Instant::now());
    let key = ResourceKey::new(SECRET, "sample");
    engine.subscribe(&key, now);
    while engine.poll_action().is_some() {}
    engine.handle_connected(ServerId(0), now);
    let slot = Slot::new("sample");
    for version in 0..u.int_in_range(1..=3)? {
        while engine.poll_request(ServerId(0)).is_some() {
            engine.handle_written(ServerId(0), now);
        }
        let mut resources = Vec::new();
        for _ in 0..u.int_in_range(0..=2)? {
            let value = spoiled(u)?;
            judge(&value);
            resources.push(Any { type_url: format!("{TYPE_URL_PREFIX}{SECRET}"), value });
        }
        let response = DiscoveryResponse {
            version_info: version.to_string(),
            nonce: version.to_string(),
            type_url: format!("{TYPE_URL_PREFIX}{SECRET}"),
            resources,
            ..DiscoveryResponse::default()
        };
        let mut bytes = response.encode_to_vec();
        if u.ratio(1, 10)? {
            input::spoil_bytes(&mut bytes, u)?;
        }
        engine.handle_message(ServerId(0), &bytes, now);
        while let Some(event) = engine.poll_resource() {
            if let ResourceEvent::Changed { value, .. } = event {
                slot.set(value.downcast_ref::<Secret>().expect("a secret is one"));
            }
        }
        while engine.poll_event().is_some() {}
    }
    Ok(())
}

fn engine() -> Engine {
    let types = ResourceTypes::secrets(Arc::new(decoder()));
    Engine::new(vec![ServerConfig::insecure("sds")], &Node::default(), types, Settings::default(), 7)
}

/// A secret is taken or refused for a reason, and twice alike; no reason quotes what may be a key.
fn judge(bytes: &[u8]) {
    match (decoder().decode(SECRET, bytes), decoder().decode(SECRET, bytes)) {
        (Decoded::Err { faults, .. }, Decoded::Err { faults: again, .. }) => {
            assert!(!faults.is_empty() && faults.len() <= 100);
            assert_eq!(faults, again, "the same faults in the same order");
            let key = PEM.1.lines().nth(1).expect("it has a body");
            assert!(faults.iter().all(|fault| !fault.rule.is_empty() && !fault.rule.contains(&key[..16])));
        }
        (Decoded::Ok { value, .. }, Decoded::Ok { .. }) => {
            let printed = format!("{:?}", value.downcast_ref::<Secret>().expect("a secret is one"));
            assert!(!printed.contains("key"), "{printed}");
        }
        (first, second) => panic!("{first:?}, and then {second:?}"),
    }
}
