//! Local rate limits on a server: a bucket for each peer identity, so that one tenant can't starve another.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use mesh_core::decode::LocalRateLimitFilter;
use mesh_core::model::{
    Fraction, HeaderMutations, HostRules, HttpFilter, LimitAction, LimitDescriptor, LimitRule, LocalRateLimit, SanKind,
    TokenBucket, UpstreamTls,
};
use tokio::net::TcpStream;

use super::client::{Client, Http};
use super::{Server, start, tell};
use crate::inbound::InboundOptions;
use crate::inbound::testing::Config;
use crate::secure::Alpn;
use crate::secure::testing::{Ca, Leaf, downstream, exactly, secure, source, upstream};

const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";

/// Two requests in an hour for each client, by its certificate; one in all for those without.
fn per_peer() -> HttpFilter {
    let holds = |max| TokenBucket { max, per_fill: 1, interval: Duration::from_secs(3600) };
    let policy = LocalRateLimit {
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(holds(1)),
        enabled: Fraction::ALWAYS,
        enforced: Fraction::ALWAYS,
        headers: HeaderMutations::default(),
        descriptors: vec![LimitDescriptor {
            entries: vec![("peer".to_owned(), None)],
            bucket: holds(2),
            shadow: false,
        }],
        stage: 0,
        host_rules: HostRules::Override,
        always_default: false,
        say_what_is_left: false,
        resource_exhausted: false,
        rules: vec![LimitRule {
            stage: 0,
            actions: vec![LimitAction::Generic {
                key: "peer".to_owned(),
                value: HeaderValue::from_static("%DOWNSTREAM_PEER_URI_SAN%"),
                default: "nobody".to_owned(),
            }],
        }],
        most_dynamic: 20,
    };
    HttpFilter {
        name: "limit".into(),
        type_url: LocalRateLimitFilter::TYPE_URL.into(),
        config: Arc::new(policy),
        disabled: false,
    }
}

async fn client(ca: &Ca, server: &Server, name: &'static str) -> Client {
    let policy = UpstreamTls { sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() };
    let tls = secure(&source(ca, &Leaf::workload(name))).client(&Arc::new(policy), Alpn::Http2);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let secured = tls.connect(Box::new(tcp), None, server.address).await.unwrap();
    Client::over(Http::Two, secured.io).await.unwrap().0
}

#[tokio::test]
async fn each_peer_identity_has_its_own_bucket() {
    let ca = Ca::new();
    let tls = Arc::new(secure(&source(&ca, &Leaf::workload(SERVER))));
    let server = start(tower::service_fn(tell), InboundOptions { tls, ..InboundOptions::default() }).await;
    let config = Config { tls: Some(Arc::new(downstream())), filters: vec![per_peer()], ..Config::new(server.address) };
    server.slot.apply(config.build(1));
    for tenant in ["spiffe://mesh.test/ns/a/sa/greedy", "spiffe://mesh.test/ns/a/sa/modest"] {
        // Over two connections: it is the identity that counts.
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let mut client = client(&ca, &server, tenant).await;
            for _ in 0..2 {
                statuses.push(client.get("/").await.unwrap().status.as_u16());
            }
        }
        assert_eq!(statuses, [200, 200, 429, 429], "{tenant}");
    }
}
