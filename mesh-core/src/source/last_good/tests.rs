//! The file against everything that can have happened to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
use prost::Message;

use super::file::{Loaded, encode, seal};
use super::*;
use crate::ads::tests::TextDecoder;
use crate::ads::{LastGood, ResourceTypes, Settings};
use crate::bootstrap::{Node, ServerConfig};
use crate::decode::DecodeResource;
use crate::resource::{CLUSTER, LISTENER};

/// 2026-01-01.
const THEN: u64 = 1_767_225_600;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A directory of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-last-good-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn of(&self, node: &str) -> LastGoodDirectory {
        LastGoodDirectory::new(&self.0, node)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn resource(type_url: &str, name: &str, bytes: impl Into<bytes::Bytes>) -> LastGood {
    LastGood {
        key: ResourceKey::new(type_url, name),
        version: "7".to_owned(),
        bytes: bytes.into(),
        server: "control:1".into(),
        confirmed: THEN,
    }
}

/// An engine that has these resources to pass on.
fn engine(resources: Vec<LastGood>) -> Engine {
    let decoder: Arc<dyn DecodeResource> = Arc::new(TextDecoder);
    let servers = vec![ServerConfig::insecure("control:1")];
    let types = ResourceTypes::standard(&decoder);
    let mut engine = Engine::new(servers, &Node::default(), types, Settings::default(), 1);
    engine.remember(resources, Duration::ZERO);
    engine
}

fn two() -> Vec<LastGood> {
    vec![resource(CLUSTER, "c", "c:one"), resource(LISTENER, "x", "x:one")]
}

fn kept(folder: &Folder) -> LastGoodDirectory {
    let directory = folder.of("node-1");
    directory.save(&engine(two()), at(THEN + 60)).unwrap();
    directory
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_kept_is_found_by_the_next_process_and_by_nobody_else() {
    let folder = Folder::new("kept");
    let directory = kept(&folder);
    let loaded = folder.of("node-1").load(at(THEN + 120)).unwrap();
    assert_eq!(loaded, Loaded { resources: two(), age: Duration::from_secs(120) });
    assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&folder.0).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing unfinished is left");
    assert_eq!(folder.of("node-2").load(at(THEN)).unwrap(), Loaded::default(), "each node has its own");
    assert_eq!(Folder::new("none").of("node-1").load(at(THEN)).unwrap(), Loaded::default());
}

#[test]
fn it_is_replaced_as_a_whole_and_what_a_crash_left_is_no_hindrance() {
    let folder = Folder::new("replaced");
    let directory = kept(&folder);
    let before = fs::metadata(directory.path()).unwrap().ino();
    let unfinished = directory.path().with_extension(format!("{}.new", std::process::id()));
    fs::write(&unfinished, "half").unwrap();
    set_mode(&unfinished, 0o644);
    directory.save(&engine(vec![resource(LISTENER, "x", "x:two")]), at(THEN)).unwrap();
    let file = fs::metadata(directory.path()).unwrap();
    assert_ne!(file.ino(), before, "whoever reads the old one reads it whole");
    assert_eq!(file.mode() & 0o7777, 0o600);
    assert_eq!(directory.load(at(THEN)).unwrap().resources, [resource(LISTENER, "x", "x:two")]);
    assert!(!unfinished.exists());
}

/// That the file is refused for this reason after `spoil` did something to it.
#[track_caller]
fn refused(test: &str, why: &str, spoil: impl FnOnce(&Folder, &Path)) {
    let folder = Folder::new(test);
    let path = kept(&folder).path();
    spoil(&folder, &path);
    let reason = folder.of("node-1").load(at(THEN + 120)).unwrap_err();
    assert!(reason.contains(why), "{test}: {reason}");
    assert!(reason.starts_with(&*path.display().to_string()), "it names the file: {reason}");
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused() {
    let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    refused("flipped", "checksum", |_, path| change(path, &|bytes| *bytes.last_mut().unwrap() ^= 1));
    refused("cut", "checksum", |_, path| change(path, &|bytes| bytes.truncate(30)));
    refused("stub", "cut off", |_, path| change(path, &|bytes| bytes.truncate(10)));
    refused("empty", "another version", |_, path| change(path, &Vec::clear));
    refused("version", "another version", |_, path| change(path, &|bytes| bytes[7] = b'2'));
    refused("large", "are the limit", |_, path| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(256 * 1024 * 1024 + 1).unwrap();
    });
}

#[test]
fn a_file_that_others_may_use_or_exchange_is_refused() {
    refused("read", "mode 640", |_, path| set_mode(path, 0o640));
    refused("write", "mode 602", |_, path| set_mode(path, 0o602));
    refused("directory", "others may write to the directory (mode 777)", |folder, _| set_mode(&folder.0, 0o777));
    refused("link", "not a plain file", |folder, path| {
        let elsewhere = folder.0.join("elsewhere");
        fs::rename(path, &elsewhere).unwrap();
        symlink(elsewhere, path).unwrap();
    });
    refused("folder", "not a plain file", |_, path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
}

#[test]
fn a_file_of_another_node_is_refused() {
    refused("node", "is of node `node-2`, and this is `node-1`", |folder, path| {
        let other = folder.of("node-2");
        other.save(&engine(two()), at(THEN)).unwrap();
        fs::rename(other.path(), path).unwrap();
    });
}

#[test]
fn what_is_over_a_day_old_is_not_used() {
    let folder = Folder::new("old");
    let directory = folder.of("node-1");
    let young = LastGood { confirmed: THEN + 3600, ..resource(LISTENER, "young", "young:one") };
    directory.save(&engine([two(), vec![young.clone()]].concat()), at(THEN + 3600)).unwrap();
    let day = 24 * 3600;
    assert_eq!(directory.load(at(THEN + day)).unwrap().resources.len(), 3);
    let loaded = directory.load(at(THEN + day + 1)).unwrap();
    assert_eq!(loaded, Loaded { resources: vec![young], age: Duration::from_secs(day - 3599) });
    let reason = directory.load(at(THEN + day + 3601)).unwrap_err();
    assert!(reason.contains("over 24 h old"), "{reason}");
    let reason = directory.load(at(THEN - 1000)).unwrap_err();
    assert!(reason.contains("from the future"), "{reason}");
    // Keeping it again makes it no younger.
    directory.save(&engine(two()), at(THEN + day + 1)).unwrap();
    assert_eq!(directory.load(at(THEN + day + 1)).unwrap(), Loaded::default());
}

#[test]
fn what_is_no_resource_of_ours_refuses_the_file() {
    let folder = Folder::new("types");
    let directory = kept(&folder);
    for (type_url, name) in [("envoy.extensions.transport_sockets.tls.v3.Secret", "s"), (LISTENER, "")] {
        let bytes = seal(&encode("node-1", vec![resource(type_url, name, "x:y")]));
        fs::write(directory.path(), bytes).unwrap();
        let reason = directory.load(at(THEN)).unwrap_err();
        assert!(reason.contains("which is not kept"), "{reason}");
    }
    // And it is not written either.
    let secret = resource("envoy.extensions.transport_sockets.tls.v3.Secret", "s", "s:secret");
    directory.save(&engine(vec![secret]), at(THEN)).unwrap();
    assert_eq!(directory.load(at(THEN)).unwrap(), Loaded::default());
}

#[test]
fn nothing_that_holds_a_secret_is_written() {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
    use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
    use envoy_types::pb::google::protobuf::Any;

    let socket = |kind: &str, value: Vec<u8>| TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"),
            value,
        })),
    };
    let inline =
        |bytes: &[u8]| DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() };
    // Not even as PEM.
    let certificate = TlsCertificate { private_key: Some(inline(&[0x30, 0x82])), ..TlsCertificate::default() };
    let common = tls::CommonTlsContext { tls_certificates: vec![certificate], ..tls::CommonTlsContext::default() };
    let upstream = |common: tls::CommonTlsContext| {
        let context =
            tls::UpstreamTlsContext { common_tls_context: Some(common), ..tls::UpstreamTlsContext::default() };
        let socket = socket("UpstreamTlsContext", context.encode_to_vec());
        Cluster { name: "c".to_owned(), transport_socket: Some(socket), ..Cluster::default() }.encode_to_vec()
    };
    let tickets = tls::DownstreamTlsContext {
        session_ticket_keys_type: Some(tls::downstream_tls_context::SessionTicketKeysType::SessionTicketKeys(
            tls::TlsSessionTicketKeys { keys: vec![inline(&[1; 80])] },
        )),
        ..tls::DownstreamTlsContext::default()
    };
    let chain = FilterChain {
        transport_socket: Some(socket("DownstreamTlsContext", tickets.encode_to_vec())),
        ..FilterChain::default()
    };
    let listener = Listener { name: "l".to_owned(), default_filter_chain: Some(chain), ..Listener::default() };
    let pem = b"\x0a\x01x\x12-----BEGIN EC PRIVATE KEY-----".to_vec();

    let folder = Folder::new("secrets");
    let directory = folder.of("node-1");
    let harmless = resource(CLUSTER, "fine", upstream(tls::CommonTlsContext::default()));
    let all = vec![
        resource(CLUSTER, "key", upstream(common)),
        resource(LISTENER, "tickets", listener.encode_to_vec()),
        resource(LISTENER, "hidden", pem),
        harmless.clone(),
    ];
    directory.save(&engine(all), at(THEN)).unwrap();
    assert_eq!(directory.load(at(THEN)).unwrap().resources, [harmless]);
}

#[test]
fn a_place_that_cannot_be_written_to_is_an_error_that_names_it() {
    let folder = Folder::new("place");
    fs::write(&folder.0, "").unwrap();
    let reason = folder.of("node-1").save(&engine(two()), at(THEN)).unwrap_err();
    assert!(reason.contains(&*folder.0.display().to_string()), "{reason}");
    let _ = fs::remove_file(&folder.0);

    let open = Folder::new("open");
    fs::create_dir(&open.0).unwrap();
    set_mode(&open.0, 0o777);
    let reason = open.of("node-1").save(&engine(two()), at(THEN)).unwrap_err();
    assert!(reason.contains("chmod go-w"), "{reason}");
}

/// Whoever can write the file can make its checksum right; what is in it is then like anything from outside.
#[test]
fn no_contents_make_it_panic() {
    let folder = Folder::new("hostile");
    let directory = kept(&folder);
    let sealed = fs::read(directory.path()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..300 {
        let mut body = sealed[16..].to_vec();
        for _ in 0..random.usize(1..8) {
            let place = random.usize(..body.len());
            body[place] = random.u8(..);
        }
        body.truncate(random.usize(..=body.len()));
        fs::write(directory.path(), seal(&body)).unwrap();
        if let Ok(loaded) = directory.load(at(THEN)) {
            let mut engine = engine(loaded.resources);
            for name in ["c", "x"] {
                engine.subscribe(&ResourceKey::new(LISTENER, name), std::time::Instant::now());
            }
        }
    }
}
