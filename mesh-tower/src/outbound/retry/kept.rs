//! What is kept of a request for another attempt.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

use super::replay::Kept;
use crate::body::MeshBody;

/// A request that can be made again.
pub(super) struct KeptRequest {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
    keep_extensions: bool,
    body: Kept,
}

impl KeptRequest {
    pub(super) fn new(request: Request<MeshBody>, room: usize, keep_extensions: bool) -> Self {
        let (head, body) = request.into_parts();
        Self {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            extensions: head.extensions,
            keep_extensions,
            body: Kept::new(body, room),
        }
    }

    /// The request, to be sent from its beginning.
    pub(super) fn again(&self) -> Request<MeshBody> {
        let mut request = Request::new(self.body.send());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if self.keep_extensions {
            *request.extensions_mut() = self.extensions.clone();
        }
        request
    }

    pub(super) fn can_replay(&self) -> bool {
        self.body.can_replay()
    }

    pub(super) fn commit(&self) {
        self.body.commit();
    }
}
