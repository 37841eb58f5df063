//! Connections of our own: the way in that owns everything down to the socket.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_core::error::Error;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::dial::Dial;
use super::link::{Establish, Established, Link};
use super::way::{Tls, Way, Wire};
use super::{BoxFuture, ConnectSettings, EndpointFactory, EndpointHandle, EndpointPlan, http1, http2};
use crate::secure::Secure;

/// Makes connections over TCP or the application's connector, with TLS as the mesh demands it and HTTP/1.1 or HTTP/2 above.
///
/// Each endpoint has one small task on the application's runtime, which makes its connections and makes them again.
pub struct Connections {
    runtime: Handle,
    dial: Arc<dyn Dial>,
    secure: Secure,
    /// The TLS of each policy in use.
    tls: Mutex<Vec<Weak<Tls>>>,
    settings: ConnectSettings,
    /// Seeds the jitter of each endpoint.
    random: Mutex<fastrand::Rng>,
}

impl Connections {
    /// Connections by `dial`, made TLS by `secure`, whose tasks run on `runtime`. `seed` is all the randomness there is.
    pub(crate) fn new(
        runtime: Handle,
        dial: Arc<dyn Dial>,
        secure: Secure,
        settings: ConnectSettings,
        seed: u64,
    ) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { runtime, dial, secure, tls: Mutex::default(), settings, random }
    }

    /// The TLS of `plan`, shared with the other endpoints of its policy: certificates and roots are parsed once for all.
    fn tls(&self, plan: &EndpointPlan) -> Option<Arc<Tls>> {
        let policy = plan.tls.as_ref()?;
        let istio = plan.endpoint.takes_istio_mtls();
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = known.iter().filter_map(Weak::upgrade).find(|tls| tls.is_of(policy, plan.protocol, istio)) {
            return Some(tls);
        }
        known.retain(|tls| tls.strong_count() > 0);
        let tls = Arc::new(Tls::new(&self.secure, policy, plan.protocol, istio));
        known.push(Arc::downgrade(&tls));
        Some(tls)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("dial", &self.dial)
            .field("secure", &self.secure)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl EndpointFactory for Connections {
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle> {
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
        let backoff = Backoff::new(self.settings.backoff, random);
        let way = Way::new(plan.clone(), self.settings.clone(), self.dial.clone(), self.tls(&plan));
        let peer = way.peer.clone();
        Arc::new(Link::start(&plan, peer, Connect(Arc::new(way)), backoff, &self.runtime))
    }

    fn proves_tls(&self) -> bool {
        true
    }

    fn owns_connections(&self) -> bool {
        true
    }
}

/// Makes connections to one endpoint.
struct Connect(Arc<Way>);

impl Establish for Connect {
    fn establish(&self) -> BoxFuture<'_, Result<Established, Error>> {
        Box::pin(async move {
            let limit = self.0.plan.connect_timeout;
            timeout(limit, self.connect()).await.unwrap_or_else(|_| Err(self.0.timed_out()))
        })
    }
}

impl Connect {
    async fn connect(&self) -> Result<Established, Error> {
        match self.0.open(self.0.plan.protocol).await? {
            Wire::Http1(io) => http1::establish(&self.0, io).await,
            Wire::Http2(io) => http2::establish(&self.0, io).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::identity::CertificateProviders;
    use mesh_core::model::UpstreamTls;

    use super::*;
    use crate::connect::tests::rig::plan;
    use crate::connect::{TcpDial, WireProtocol};
    use crate::secure::testing::upstream;

    #[tokio::test]
    async fn endpoints_of_one_policy_share_its_tls() {
        let secure = Secure::new(CertificateProviders::default());
        let dial = Arc::new(TcpDial::new(Some(crate::connect::TcpKeepalive::default())));
        let connections = Connections::new(Handle::current(), dial, secure, ConnectSettings::default(), 1);
        let policy = Arc::new(upstream());
        let of = |policy: &Arc<UpstreamTls>, protocol| {
            let plan = plan("127.0.0.1:80".parse().unwrap(), protocol);
            connections.tls(&EndpointPlan { tls: Some(policy.clone()), ..plan }).unwrap()
        };
        let first = of(&policy, WireProtocol::Http2);
        assert!(Arc::ptr_eq(&first, &of(&policy, WireProtocol::Http2)));
        assert!(!Arc::ptr_eq(&first, &of(&policy, WireProtocol::Http1)));
        assert!(!Arc::ptr_eq(&first, &of(&Arc::new(upstream()), WireProtocol::Http2)));
        drop(first);
        let _last = of(&Arc::new(upstream()), WireProtocol::Http1);
        assert_eq!(connections.tls.lock().unwrap().len(), 1, "what nobody uses is forgotten");
    }
}
