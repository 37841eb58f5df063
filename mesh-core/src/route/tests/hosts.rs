//! Virtual hosts (spec 4.1; Envoy's `vhost` behaviour).

use std::sync::Arc;

use super::*;
use crate::route::{RouteIndex, without_port};

fn index(domains: &[(&str, &[&str])], ignore_port: bool) -> RouteIndex {
    let hosts = domains.iter().map(|(name, domains)| host(name, domains, Vec::new())).collect();
    RouteIndex::new(Arc::new(RouteTable { ignore_port_in_host: ignore_port, ..table(hosts) }))
}

fn check(index: &RouteIndex, cases: &[(&str, Option<&str>, &str)]) {
    for (authority, expected, why) in cases {
        let found = index.virtual_host(authority).map(|host| &*host.name);
        assert_eq!(found, *expected, "{authority:?}: {why}");
    }
}

/// gRFC A27.
#[test]
fn the_class_of_a_pattern_decides_before_its_length() {
    let index = index(
        &[
            ("star", &["*"]),
            ("suf1", &["*.example.com"]),
            ("suf2", &["*.foo.example.com"]),
            ("exact", &["api.foo.example.com"]),
            ("pre1", &["api.*"]),
            ("pre2", &["api.foo.*"]),
            ("port", &["api.foo.example.com:8080"]),
            ("sufdash", &["*-bar.example.com"]),
            ("sufport", &["*.ports.test:9000"]),
            ("upper", &["UPPER.Example.ORG"]),
            ("v6", &["[::1]"]),
            ("v6p", &["[::1]:8080"]),
        ],
        false,
    );
    let long = format!("{}.example.com", "a".repeat(400));
    check(
        &index,
        &[
            ("api.foo.example.com", Some("exact"), "exact beats everything"),
            ("api.foo.example.com:8080", Some("port"), "the port is part of the name"),
            ("api.foo.example.com:443", Some("pre2"), "so another port is another name"),
            ("a.b.foo.example.com", Some("suf2"), "the longest suffix"),
            ("x.example.com", Some("suf1"), "a suffix"),
            ("api.example.com", Some("suf1"), "a suffix beats a prefix, whatever their lengths"),
            ("example.com", Some("star"), "the suffix begins with a dot"),
            ("-bar.example.com", Some("suf1"), "the star stands for one character at least"),
            ("x-bar.example.com", Some("sufdash"), "a star may be part of a label"),
            ("api.foo.org", Some("pre2"), "the longest prefix"),
            ("api.foo", Some("pre1"), "a shorter one"),
            ("api.", Some("star"), "the star of a prefix stands for one character too"),
            ("API.FOO.ORG", Some("pre2"), "case does not count in a request"),
            ("upper.example.org", Some("upper"), "nor in the configuration"),
            ("", Some("star"), "no authority"),
            ("x.ports.test", Some("star"), "a port in a suffix must be there"),
            ("x.ports.test:9000", Some("sufport"), "as here"),
            ("[::1]", Some("v6"), "an IPv6 address"),
            ("[::1]:8080", Some("v6p"), "with its port"),
            ("[::1]:80", Some("star"), "with another"),
            ("x.example.com.", Some("star"), "a trailing dot is another name"),
            (&long, Some("suf1"), "longer than any real name"),
        ],
    );
}

#[test]
fn without_a_catch_all_there_may_be_no_virtual_host() {
    let index = index(&[("suf", &["*.a.test"]), ("multi", &["*.m1.test", "m2.*", "m3.test"])], false);
    check(
        &index,
        &[
            ("svc.a.test", Some("suf"), "a suffix"),
            ("a.test", None, "nothing before the dot"),
            (".a.test", None, "the star wants a character"),
            ("m2.q", Some("multi"), "one of several domains"),
            ("m3.test:80", None, "the port is part of the name"),
            ("", None, "no authority"),
        ],
    );
}

#[test]
fn ports_can_be_left_out_of_it() {
    let index = index(&[("exact", &["one.test"]), ("port", &["two.test:8080"]), ("v6", &["[::1]"])], true);
    check(
        &index,
        &[
            ("one.test", Some("exact"), "no port"),
            ("one.test:12345", Some("exact"), "any port"),
            ("one.test:", Some("exact"), "a colon alone"),
            ("two.test:8080", None, "a domain with a port is never met"),
            ("[::1]:80", Some("v6"), "an IPv6 address keeps its colons"),
            ("[::1]", Some("v6"), "also without a port"),
        ],
    );
}

#[test]
fn the_first_of_equal_domains_wins() {
    let index = index(&[("first", &["*.a", "b.*", "c", "*"]), ("second", &["*.a", "b.*", "c", "*"])], false);
    for authority in ["x.a", "b.x", "c", "other"] {
        check(&index, &[(authority, Some("first"), "the first listed")]);
    }
}

#[test]
fn a_port_is_what_follows_the_last_colon_outside_of_brackets() {
    let cases = [("a:1", "a"), ("a", "a"), ("a:", "a"), ("[::1]", "[::1]"), ("[::1]:1", "[::1]"), ("", ""), (":1", "")];
    for (authority, expected) in cases {
        assert_eq!(without_port(authority), expected);
    }
}
