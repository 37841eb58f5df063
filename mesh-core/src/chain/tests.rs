//! Chain selection, as tables: what grpc-go's lookup tests ask for, the stages one by one, and no way back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{ChainIndex, ConnectionFacts, FirstBytes, NoChain};
use crate::model::listener::EscapedSlashes;
use crate::model::{ChainMatch, FilterChain, HttpConnection, Inspection, RouteSource, ServerListener, SourceType};

const WILDCARD: &str = "0.0.0.0";

fn http() -> Arc<HttpConnection> {
    Arc::new(HttpConnection {
        routes: RouteSource::Rds("r".into()),
        filters: Vec::new(),
        max_stream_duration: None,
        normalize_path: false,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_any_host_port: false,
        strip_matching_host_port: false,
        strip_trailing_host_dot: false,
        origin: Default::default(),
        underscores: Default::default(),
        head: Default::default(),
        upgrades: Vec::new(),
        client_cert: Default::default(),
        unsupported: Vec::new(),
    })
}

/// `dst=192.168.0.0/16 src=10.0.0.0/8 type=ext ports=1,2 tp=raw_buffer sni=a alpn=h2 dport=80`, all optional.
fn chain(name: &str, spec: &str) -> Arc<FilterChain> {
    let mut matches = ChainMatch::default();
    for word in spec.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "dst" => matches.destination = value.split(',').map(|range| range.parse().unwrap()).collect(),
            "src" => matches.source = value.split(',').map(|range| range.parse().unwrap()).collect(),
            "ports" => matches.source_ports = value.split(',').map(|port| port.parse().unwrap()).collect(),
            "type" if value == "ext" => matches.source_type = SourceType::External,
            "type" => matches.source_type = SourceType::SameIpOrLoopback,
            "tp" => matches.transport_protocol = value.into(),
            "sni" => matches.server_names = vec![value.into()],
            "alpn" => matches.application_protocols = vec![value.into()],
            "dport" => matches.destination_port = Some(value.parse().unwrap()),
            other => panic!("{other}"),
        }
    }
    Arc::new(FilterChain { name: name.into(), matches, tls: None, http: http(), encoded: None })
}

fn select(bound: &str, chains: &[(&str, &str)], default: bool, from: &str, to: &str) -> Result<String, NoChain> {
    choose(bound, chains, default, from, to, None)
}

const INSPECTION: Inspection =
    Inspection { tls: true, http: true, timeout: std::time::Duration::ZERO, max_client_hello: 1 };

/// The same, where the first bytes are looked at.
fn choose(
    bound: &str,
    chains: &[(&str, &str)],
    default: bool,
    from: &str,
    to: &str,
    first: Option<&FirstBytes>,
) -> Result<String, NoChain> {
    let listener = ServerListener {
        address: SocketAddr::new(bound.parse().unwrap(), 80),
        chains: chains.iter().map(|(name, spec)| chain(name, spec)).collect(),
        default_chain: default.then(|| chain("default", "")),
        inspection: first.map(|_| INSPECTION),
    };
    let index = ChainIndex::new(&listener, bound.parse::<IpAddr>().unwrap());
    let first = first.unwrap_or(FirstBytes::unseen());
    let facts = ConnectionFacts { source: from.parse().unwrap(), destination: to.parse().unwrap(), first };
    index.select(&facts).map(|number| index.chains()[number].name.to_string())
}

/// The Listener of grpc-go's `TestLookup_Successes`.
const LAYERS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("all-v4", "dst=0.0.0.0/0 src=0.0.0.0/0"),
    ("source-v6", "src=::/0"),
    ("dst16", "dst=192.168.1.1/16"),
    ("dst24-ext", "dst=192.168.1.1/24 type=ext"),
    ("dst24-ext-src", "dst=192.168.1.1/24 type=ext src=192.168.92.1/24"),
    ("dst24-ext-src-port", "dst=192.168.1.1/24 type=ext src=192.168.92.1/24 ports=80"),
];

/// gRFC A36.
#[test]
fn the_most_specific_chain_takes_the_connection() {
    let rows = [
        ("10.1.1.1:1", "[2001:68::db8]:80", "nothing"),
        ("10.1.1.1:1", "10.1.1.1:80", "all-v4"),
        ("[2001:68::2]:1", "[2001:68::1]:80", "source-v6"),
        ("192.168.100.1:80", "192.168.100.1:80", "dst16"),
        ("10.1.1.1:80", "192.168.1.1:80", "dst24-ext"),
        ("192.168.92.100:70", "192.168.1.1:80", "dst24-ext-src"),
        ("192.168.92.100:80", "192.168.1.1:80", "dst24-ext-src-port"),
    ];
    for (from, to, want) in rows {
        assert_eq!(select(WILDCARD, LAYERS, false, from, to).as_deref(), Ok(want), "{from} to {to}");
    }
}

#[test]
fn what_no_stage_takes_goes_to_the_default_chain_or_nowhere() {
    let rows: &[(&str, &str, &str)] = &[
        ("dst=192.168.1.1/16", "10.2.2.2:1", "10.1.1.1:80"),
        ("dst=192.168.1.1/16 type=local", "192.168.100.2:1", "192.168.100.1:80"),
        ("src=192.168.1.1/24 type=local", "192.168.100.1:1", "192.168.100.1:80"),
        ("ports=1,2,3", "192.168.100.1:80", "192.168.100.1:80"),
    ];
    for (spec, from, to) in rows {
        let chains = [("only", *spec)];
        assert_eq!(select(WILDCARD, &chains, false, from, to), Err(NoChain::NoMatch), "{spec}");
        assert_eq!(select(WILDCARD, &chains, true, from, to).as_deref(), Ok("default"), "{spec}");
    }
}

#[test]
fn chains_that_need_what_is_not_known_never_match() {
    for spec in ["dport=80", "sni=a.test", "alpn=h2", "tp=tls", "tp=quic"] {
        assert_eq!(select(WILDCARD, &[("never", spec)], false, "10.0.0.1:1", "10.0.0.2:80"), Err(NoChain::NoMatch));
        let chains = [("never", spec), ("plain", "")];
        assert_eq!(select(WILDCARD, &chains, false, "10.0.0.1:1", "10.0.0.2:80").as_deref(), Ok("plain"), "{spec}");
    }
}

#[test]
fn no_stage_goes_back() {
    // Each first chain is better at an early stage and fails at a later one; the second would have matched.
    let rows = [
        ([("early", "dst=10.0.0.0/24 ports=1"), ("late", "dst=10.0.0.0/8")], "a longer destination"),
        ([("early", "tp=raw_buffer ports=1"), ("late", "")], "a transport protocol"),
        ([("early", "type=ext ports=1"), ("late", "")], "a kind of source"),
        ([("early", "src=10.9.0.0/16 ports=1"), ("late", "src=10.0.0.0/8")], "a longer source"),
    ];
    for (chains, what) in rows {
        let got = select(WILDCARD, &chains, true, "10.9.0.9:7", "10.0.0.1:80");
        assert_eq!(got.as_deref(), Ok("default"), "{what}");
        assert_eq!(select(WILDCARD, &chains, true, "10.9.0.9:1", "10.0.0.1:80").as_deref(), Ok("early"), "{what}");
    }
}

#[test]
fn each_stage_prefers_what_is_said_over_what_is_not() {
    let rows = [
        ([("less", ""), ("more", "dst=0.0.0.0/0")], "a destination of /0 beats none"),
        ([("less", "dst=10.0.0.0/8"), ("more", "dst=10.0.0.0/16")], "the longer destination"),
        ([("less", ""), ("more", "tp=raw_buffer")], "raw_buffer beats no transport protocol"),
        ([("less", ""), ("more", "type=ext")], "a kind of source beats any"),
        ([("less", ""), ("more", "src=0.0.0.0/0")], "a source of /0 beats none"),
        ([("less", "src=10.0.0.0/8"), ("more", "src=172.16.0.0/12,10.9.0.0/16")], "the longer source"),
        ([("less", ""), ("more", "ports=7,8")], "a port beats none"),
    ];
    for (mut chains, what) in rows {
        for _ in 0..2 {
            assert_eq!(select(WILDCARD, &chains, false, "10.9.0.9:7", "10.0.0.1:80").as_deref(), Ok("more"), "{what}");
            chains.reverse();
        }
    }
}

#[test]
fn an_earlier_stage_outweighs_every_later_one() {
    let chains = [("dst", "dst=10.0.0.0/8"), ("rest", "tp=raw_buffer type=ext src=10.9.0.9/32 ports=7")];
    assert_eq!(select(WILDCARD, &chains, false, "10.9.0.9:7", "10.0.0.1:80").as_deref(), Ok("dst"));
}

#[test]
fn a_client_on_this_machine_is_local() {
    let chains = [("local", "type=local"), ("external", "type=ext")];
    let rows = [
        ("127.0.0.1:7", "10.0.0.1:80", "local"),
        ("127.9.9.9:7", "127.0.0.1:80", "local"),
        ("[::1]:7", "[::1]:80", "local"),
        ("10.0.0.1:7", "10.0.0.1:80", "local"),
        ("10.0.0.1:7", "[::ffff:10.0.0.1]:80", "local"),
        ("[::ffff:127.0.0.1]:7", "[::ffff:10.0.0.1]:80", "local"),
        ("10.0.0.2:7", "10.0.0.1:80", "external"),
        ("[fe80::1]:7", "[fe80::2]:80", "external"),
    ];
    for (from, to, want) in rows {
        assert_eq!(select("::", &chains, false, from, to).as_deref(), Ok(want), "{from} to {to}");
    }
}

#[test]
fn mapped_addresses_and_ranges_are_unmapped() {
    let rows = [
        ("dst=10.0.0.0/8", "[::ffff:10.9.0.9]:7", "[::ffff:10.0.0.1]:80", Ok("it")),
        ("src=10.9.0.0/16", "[::ffff:10.9.0.9]:7", "[::ffff:10.0.0.1]:80", Ok("it")),
        ("src=::ffff:10.9.0.0/112", "10.9.0.9:7", "10.0.0.1:80", Ok("it")),
        ("src=::ffff:10.9.0.0/112", "10.8.0.9:7", "10.0.0.1:80", Err(NoChain::NoMatch)),
        ("src=::/0", "[::ffff:10.9.0.9]:7", "[::ffff:10.0.0.1]:80", Err(NoChain::NoMatch)),
    ];
    for (spec, from, to, want) in rows {
        let got = select("::", &[("it", spec)], false, from, to);
        assert_eq!(got.as_ref().map(String::as_str).map_err(|error| *error), want, "{spec}");
    }
}

#[test]
fn destinations_do_not_count_on_a_specific_address() {
    let chains = [("ports", "ports=1,2,3"), ("dst", "dst=192.168.1.1/16 ports=1")];
    let (from, to) = ("192.168.100.1:1", "192.168.100.1:80");
    assert_eq!(select("192.168.100.1", &chains, true, from, to), Err(NoChain::Ambiguous));
    assert_eq!(select(WILDCARD, &chains, true, from, to).as_deref(), Ok("dst"));
    let far = [("far", "dst=172.16.0.0/12")];
    assert_eq!(select("192.168.100.1", &far, false, from, to).as_deref(), Ok("far"));
}

#[test]
fn a_chain_may_repeat_itself() {
    let chains = [("twice", "src=10.0.0.0/8,10.1.2.3/8 ports=7,7")];
    assert_eq!(select(WILDCARD, &chains, false, "10.9.0.9:7", "10.0.0.1:80").as_deref(), Ok("twice"));
}

/// Istio's chains of a port that takes the mesh's mTLS, an application's own TLS and plaintext.
const PERMISSIVE: &[(&str, &str)] = &[
    ("mesh", "tp=tls alpn=istio"),
    ("mesh-tcp", "tp=tls alpn=istio-peer-exchange"),
    ("own", "tp=tls"),
    ("own-name", "tp=tls sni=app.test"),
    ("own-domain", "tp=tls sni=*.app.test"),
    ("own-subdomain", "tp=tls sni=*.b.App.test"),
    ("h2c", "tp=raw_buffer alpn=h2c"),
    ("plain", "tp=raw_buffer"),
];

/// Envoy's stages of `server_names`, `transport_protocol` and `application_protocols`, which gRPC has not.
#[test]
fn what_the_client_says_first_chooses_its_chain() {
    for (tls, name, protocols, expected) in [
        (true, None, &["istio-http/1.1", "istio", "http/1.1"][..], "mesh"),
        (true, None, &["istio-peer-exchange", "istio"], "mesh-tcp"),
        (true, None, &["istio", "istio-peer-exchange"], "mesh"),
        (true, None, &["h2"], "own"),
        (true, None, &[], "own"),
        (true, Some("app.test"), &["h2"], "own-name"),
        (true, Some("a.app.test"), &[], "own-domain"),
        (true, Some("x.a.app.test"), &[], "own-domain"),
        (true, Some("x.b.app.test"), &[], "own-subdomain"),
        // The name comes before the protocol, and there is no way back.
        (true, Some("app.test"), &["istio"], "own-name"),
        (true, Some("other.test"), &["istio"], "mesh"),
        (true, Some("xapp.test"), &[], "own"),
        (false, None, &["h2c"], "h2c"),
        (false, None, &["http/1.1"], "plain"),
        (false, None, &[], "plain"),
    ] {
        let protocols = protocols.iter().map(|&name| name.to_owned()).collect();
        let first = FirstBytes { tls, server_name: name.map(str::to_owned), protocols };
        let chosen = choose(WILDCARD, PERMISSIVE, false, "10.0.0.1:1", "10.0.0.2:80", Some(&first));
        assert_eq!(chosen.as_deref(), Ok(expected), "{first:?}");
    }
    let strict = &PERMISSIVE[..2];
    for first in [FirstBytes::default(), FirstBytes { tls: true, ..FirstBytes::default() }] {
        let chosen = choose(WILDCARD, strict, false, "10.0.0.1:1", "10.0.0.2:80", Some(&first));
        assert_eq!(chosen, Err(NoChain::NoMatch), "{first:?}");
    }
}
