//! This machine's own address, as others know it: what Envoy takes from the first interface that is not loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::LazyLock;

/// An address far away, which nobody has (RFC 5737): the way there leads over the interface that leads out.
const FAR_AWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9);

static OWN: LazyLock<IpAddr> = LazyLock::new(|| ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));

/// The address that this machine's packets have elsewhere; that of loopback where it has no network. It is asked for once, as
/// in Envoy.
pub(super) fn own_address() -> IpAddr {
    *OWN
}

/// Asks the kernel by connecting a socket for datagrams, which sends nothing.
fn ask() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(FAR_AWAY).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_one_that_can_be_bound() {
        UdpSocket::bind((own_address(), 0)).expect("it is this machine's");
    }
}
