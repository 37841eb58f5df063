//! What a client is told.

use super::*;

#[test]
fn a_denial_does_not_name_its_policy() {
    let reply = denial();
    assert_eq!((reply.status.as_u16(), reply.message.as_str()), (403, MESSAGE));
    assert_eq!(reply.headers[ERROR_HEADER], "MESH-313");
}
