//! What is kept of a request, so that it can be made again: by another attempt, or by another route.

mod replay;

use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

use mesh_core::policy::internal_redirect::RequestHead;
use replay::Kept;

use crate::body::MeshBody;

/// A request that can be made again.
pub(crate) struct KeptRequest {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
    keep_extensions: bool,
    body: Kept,
}

impl KeptRequest {
    pub(crate) fn new(request: Request<MeshBody>, room: usize, keep_extensions: bool) -> Self {
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
    pub(crate) fn again(&self) -> Request<MeshBody> {
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

    /// Its head.
    pub(crate) fn head(&self) -> RequestHead {
        RequestHead { method: self.method.clone(), uri: self.uri.clone(), headers: self.headers.clone() }
    }

    /// The request under another head, with the body or without.
    pub(crate) fn elsewhere(&self, head: RequestHead, drop_body: bool) -> Request<MeshBody> {
        let mut request = Request::new(if drop_body { MeshBody::empty() } else { self.body.send() });
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = head.headers;
        *request.extensions_mut() = self.extensions.clone();
        request
    }

    /// Whether all of it has been read, and kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    pub(crate) fn can_replay(&self) -> bool {
        self.body.can_replay()
    }

    pub(crate) fn commit(&self) {
        self.body.commit();
    }
}
