//! What the audit log says, and that nobody is told more than that.

use super::*;

/// gRFC: A59
#[test]
fn an_audit_line_says_who_did_what_and_why_it_was_judged_so() {
    let denied = RbacVerdict { allowed: false, policy: Some("no-admin".into()) };
    let line = audit_line("envoy.filters.http.rbac", "/pkg.Service/Method", None, &denied);
    let expected = serde_json::json!({"grpc_audit_log": {
        "rpc_method": "/pkg.Service/Method",
        "principal": "",
        "policy_name": "envoy.filters.http.rbac",
        "matched_rule": "no-admin",
        "authorized": false,
    }});
    assert_eq!(line, expected);
}

#[test]
fn a_denial_does_not_name_its_policy() {
    let reply = denial();
    assert_eq!((reply.status.as_u16(), reply.message.as_str()), (403, MESSAGE));
    assert_eq!(reply.headers[ERROR_HEADER], "MESH-313");
}
