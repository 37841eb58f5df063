//! Keys that are fetched: ahead of requests, again before they expire, and kept when that fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use mesh_core::error::{Code, Error};
use mesh_core::model::RemoteJwks;
use mesh_core::policy::jwt::Jwks;

use super::live::{Keys, MOST_BYTES};
use crate::filter::Callouts;
use crate::outbound::HttpClient;

/// Keys are fetched so long before they expire, as Envoy does.
const AHEAD: Duration = Duration::from_secs(5);
/// The longest wait after failures, in waits after the first one.
const MOST_BACKOFF: u32 = 10;
/// Nobody is asked more often than this, whatever the configuration says.
const SHORTEST: Duration = Duration::from_millis(100);

/// The client that asks for them.
///
/// # Errors
///
/// There is none to be had.
pub(super) fn client(source: &RemoteJwks, callouts: &Callouts) -> Result<HttpClient, Error> {
    let authority = source.uri.authority().cloned().ok_or_else(|| {
        Error::new(Code::RESOURCE_REFUSED, format!("{}: the URI of the keys has no host", source.uri))
    })?;
    callouts.client(&source.cluster, authority)
}

/// Fetches for as long as somebody wants the keys.
pub(super) async fn keep(client: HttpClient, source: RemoteJwks, keys: Keys) {
    let mut failures = 0;
    loop {
        let fetched = tokio::time::timeout(source.timeout, fetch(&client, &source));
        let pause = match fetched.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", source.timeout))) {
            Ok(jwks) => {
                tracing::debug!(target: "mesh", "took {} keys from {}", jwks.len(), source.uri);
                failures = 0;
                keys.store(Arc::new(Ok(Arc::new(jwks))));
                source
                    .cache_duration
                    .checked_sub(AHEAD)
                    .filter(|pause| !pause.is_zero())
                    .unwrap_or(source.cache_duration)
            }
            Err(why) => {
                tracing::warn!(target: "mesh", "no keys from {} by cluster `{}`: {why}", source.uri, source.cluster);
                let factor = 2_u32.saturating_pow(failures).min(MOST_BACKOFF);
                failures += 1;
                source.failed_refetch.saturating_mul(factor)
            }
        };
        tokio::time::sleep(pause.max(SHORTEST)).await;
    }
}

async fn fetch(client: &HttpClient, source: &RemoteJwks) -> Result<Jwks, String> {
    let request = Request::get(source.uri.clone()).header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
    let response = client.send(request.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|error| error.to_string())?;
    Jwks::parse(&body.to_bytes()).map_err(|status| status.to_string())
}
