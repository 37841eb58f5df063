//! What rules say to requests: gRFC A41's table, by hand.

use http::{HeaderMap, Method};

use super::*;
use crate::identity::Sans;
use crate::model::matcher::MatchName;
use crate::model::{Audit, HeaderMatch, HeaderTest, Pattern, SanKind, SanMatch};

fn exact(text: &str) -> StringMatch {
    StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false }
}

fn range(text: &str) -> IpNet {
    text.parse().expect("a range")
}

/// A request of `client`, which shows `peer` over TLS.
struct Asked<'a> {
    path: &'a str,
    client: &'a str,
    tls: bool,
    peer: Option<PeerIdentity>,
    server_name: Option<&'a str>,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self { path: "/a?b=/admin#/c", client: "10.0.0.7", tls: false, peer: None, server_name: None }
    }
}

impl Asked<'_> {
    fn judge<T>(&self, ask: impl FnOnce(&RbacFacts<'_>) -> T) -> T {
        let headers = HeaderMap::from_iter([("x-user".parse().expect("a name"), "ann".parse().expect("a value"))]);
        let metadata = Metadata::new();
        let request = RequestFacts {
            method: &Method::GET,
            scheme: "https",
            authority: "svc.test",
            path: self.path,
            headers: &headers,
            is_grpc: false,
            tls: None,
            source_ip: None,
            is_internal: false,
            channel_id: 0,
            metadata: None,
        };
        ask(&RbacFacts {
            request,
            tls: self.tls,
            peer: self.peer.as_ref(),
            server_name: self.server_name,
            source: self.client.parse().expect("an address"),
            client: "192.0.2.1".parse().expect("an address"),
            destination: "[::ffff:10.0.0.1]:8080".parse().expect("an address"),
            metadata: &metadata,
            route_metadata: &metadata,
        })
    }

    fn may(&self, permission: &Permission) -> bool {
        self.judge(|facts| permission.is_match(facts))
    }

    fn is(&self, principal: &Principal) -> bool {
        self.judge(|facts| principal.is_match(facts))
    }
}

fn policy(name: &str, permission: Permission, principal: Principal) -> RbacPolicy {
    RbacPolicy { name: name.into(), permissions: vec![permission], principals: vec![principal] }
}

fn judge(action: RbacAction, policies: Vec<RbacPolicy>) -> (bool, Option<String>) {
    let rules = RbacRules { action, policies, audit: Audit::default() };
    let verdict = Asked::default().judge(|facts| rules.judge(facts));
    (verdict.allowed, verdict.policy.map(str::to_owned))
}

/// gRFC A41.
#[test]
fn the_action_decides_what_a_match_means() {
    let hit = || policy("hit", Permission::Any, Principal::Any);
    let miss = || policy("miss", Permission::UrlPath(exact("/other")), Principal::Any);
    let half = || policy("half", Permission::Any, Principal::Header(header("x-user", "bob")));
    let found = Some("hit".to_owned());
    assert_eq!(judge(RbacAction::Allow, vec![miss(), half(), hit()]), (true, found.clone()));
    assert_eq!(judge(RbacAction::Allow, vec![miss(), half()]), (false, None));
    assert_eq!(judge(RbacAction::Allow, vec![]), (false, None), "nothing is allowed to no one");
    assert_eq!(judge(RbacAction::Deny, vec![miss(), hit()]), (false, found.clone()));
    assert_eq!(judge(RbacAction::Deny, vec![miss(), half()]), (true, None));
    assert_eq!(judge(RbacAction::Deny, vec![]), (true, None));
    assert_eq!(judge(RbacAction::Log, vec![hit()]), (true, found));
    assert_eq!(judge(RbacAction::Log, vec![miss()]), (true, None));
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: MatchName::Header(http::HeaderName::from_static(name)),
        test: HeaderTest::String(exact(value)),
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[test]
fn permissions_say_what_is_done() {
    let request = Asked { server_name: Some("svc.test"), ..Asked::default() };
    let not = |permission| Permission::Not(Box::new(permission));
    for (permission, expected) in [
        (Permission::UrlPath(exact("/a")), true),
        (Permission::UrlPath(exact("/a?b=/admin#/c")), false),
        (Permission::DestinationIp(range("10.0.0.0/24")), true),
        (Permission::DestinationIp(range("10.0.1.0/24")), false),
        (Permission::DestinationPort(8080), true),
        (Permission::DestinationPort(80), false),
        (Permission::DestinationPortRange { start: 8080, end: 8081 }, true),
        (Permission::DestinationPortRange { start: 8081, end: 9000 }, false),
        (Permission::DestinationPortRange { start: 80, end: 8080 }, false),
        (Permission::ServerName(exact("svc.test")), true),
        (Permission::Header(header("x-user", "ann")), true),
        (Permission::And(vec![Permission::Any, Permission::DestinationPort(80)]), false),
        (Permission::Or(vec![Permission::DestinationPort(80), Permission::Any]), true),
        (not(Permission::Any), false),
        (not(Permission::And(vec![Permission::Any, not(Permission::Any)])), true),
    ] {
        assert_eq!(request.may(&permission), expected, "{permission:?}");
    }
    assert!(Asked::default().may(&Permission::ServerName(exact(""))), "no server name is an empty one");
}

#[test]
fn principals_say_who_does_it() {
    for (client, inside, expected) in [
        ("10.0.0.7", "10.0.0.0/8", true),
        ("11.0.0.7", "10.0.0.0/8", false),
        ("::ffff:10.0.0.7", "10.0.0.0/8", true),
        ("10.0.0.7", "::/0", false),
        ("2001:db8::1", "2001:db8::/32", true),
    ] {
        let request = Asked { client, ..Asked::default() };
        assert_eq!(request.is(&Principal::DirectRemoteIp(range(inside))), expected, "{client} in {inside}");
        assert!(!request.is(&Principal::RemoteIp(range(inside))));
    }
    assert!(Asked::default().is(&Principal::RemoteIp(range("192.0.2.0/24"))));
    let not = Principal::Not(Box::new(Principal::Or(vec![Principal::UrlPath(exact("/b")), Principal::Any])));
    assert!(!Asked::default().is(&not));
    assert!(Asked::default().is(&Principal::And(vec![Principal::Any, Principal::Header(header("x-user", "ann"))])));
}

fn names(uris: &[&str], dns: &[&str], subject: &str) -> Option<PeerIdentity> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let sans = Sans { uris: owned(uris), dns: owned(dns), ..Sans::default() };
    Some(PeerIdentity::of_names(sans, subject))
}

/// gRFC A41.
#[test]
fn a_name_is_of_the_first_kind_that_the_certificate_has() {
    let called = |peer, name: Option<&str>| {
        Asked { tls: true, peer, ..Asked::default() }.is(&Principal::Authenticated(name.map(exact)))
    };
    let all = || names(&["spiffe://td/a", "spiffe://td/b"], &["a.test"], "CN=a");
    assert!(called(all(), Some("spiffe://td/a")) && called(all(), Some("spiffe://td/b")));
    assert!(!called(all(), Some("a.test")) && !called(all(), Some("CN=a")) && !called(all(), Some("")));
    let dns = || names(&[], &["a.test"], "CN=a");
    assert!(called(dns(), Some("a.test")) && !called(dns(), Some("CN=a")));
    assert!(called(names(&[], &[], "CN=a"), Some("CN=a")));
    assert!(called(None, Some("")) && !called(None, Some("a")), "no certificate is an empty name");
    assert!(called(None, None) && called(all(), None), "anyone under TLS");
    let plain = Asked { peer: all(), ..Asked::default() };
    assert!(!plain.is(&Principal::Authenticated(None)) && !plain.is(&Principal::Authenticated(Some(exact("")))));
}

#[test]
fn a_verified_certificate_is_more_than_tls() {
    let name = |kind, text| Principal::Verified(Some(SanMatch { kind: Some(kind), matcher: exact(text) }));
    let shown = Asked { tls: true, peer: names(&["spiffe://td/a"], &["a.test"], ""), ..Asked::default() };
    assert!(shown.is(&Principal::Verified(None)));
    assert!(shown.is(&name(SanKind::Uri, "spiffe://td/a")) && shown.is(&name(SanKind::Dns, "a.test")));
    assert!(!shown.is(&name(SanKind::Dns, "spiffe://td/a")));
    let none = Asked { tls: true, ..Asked::default() };
    assert!(!none.is(&Principal::Verified(None)) && !none.is(&name(SanKind::Uri, "")));
}

/// gRFC A59.
#[test]
fn an_audit_line_says_who_did_what_and_why_it_was_judged_so() {
    let denied = RbacVerdict { allowed: false, policy: Some("no-admin") };
    let line = denied.audit_line("envoy.filters.http.rbac", "/pkg.Service/Method", Some("spiffe://td/\"a\""));
    assert!(!line.contains('\n'));
    let expected = serde_json::json!({"grpc_audit_log": {
        "rpc_method": "/pkg.Service/Method",
        "principal": "spiffe://td/\"a\"",
        "policy_name": "envoy.filters.http.rbac",
        "matched_rule": "no-admin",
        "authorized": false,
    }});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).expect("it is JSON"), expected);
}
