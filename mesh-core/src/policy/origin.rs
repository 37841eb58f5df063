//! Where does a request come from, if proxies stand before us? Envoy's rules for `x-forwarded-for`.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

use crate::model::OriginTrust;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client whose request came over a connection from `peer`.
///
/// Each proxy adds the address that it saw at the end of the header, so it is read from there, past the hops that are
/// trusted. What cannot be read so is not believed, and leaves `peer`. Where nobody says which hops to trust, the
/// header decides nothing (gRFC A41), unless Envoy's rules do ([`OriginTrust::believes_header`]). That is the
/// Listener's to say and never the request's: two ways to read one request are a way around a policy.
pub fn client_address(trust: &OriginTrust, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let hops = match (trust.use_remote_address, trust.trusted_hops) {
        (true, 0) => return peer,
        (false, 0) if !trust.believes_header => return peer,
        // The nearest trusted hop is the peer itself, which is not in the header.
        (true, hops) => hops - 1,
        (false, hops) => hops,
    };
    let nth = usize::try_from(hops).unwrap_or(usize::MAX);
    forwarded_for(headers, nth).unwrap_or(peer)
}

/// The address before the last `skip` ones. Several headers are one list.
fn forwarded_for(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let values = headers.get_all(FORWARDED_FOR).into_iter().rev();
    let mut addresses = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let text = std::str::from_utf8(addresses.nth(skip)?).ok()?;
    address(text.trim_ascii())
}

/// An IPv6 address may have a zone. One that holds an IPv4 address stays IPv6, as in Envoy: who writes it so must not be taken
/// for another client.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(trust: &OriginTrust, headers: &[&'static str]) -> String {
        let headers = headers.iter().map(|&value| (FORWARDED_FOR.parse().unwrap(), value.parse().unwrap())).collect();
        client_address(trust, &headers, "192.0.2.9".parse().unwrap()).to_string()
    }

    /// By Envoy's rules.
    fn of(use_remote_address: bool, trusted_hops: u32, headers: &[&'static str]) -> String {
        let trust = OriginTrust { use_remote_address, trusted_hops, believes_header: true, ..OriginTrust::default() };
        judged(&trust, headers)
    }

    /// gRFC A41: all its addresses of a client are the connection's.
    #[test]
    fn a41_a_client_does_not_say_itself_where_it_is() {
        let headers: &[&[&str]] = &[&["10.1.1.1"], &["10.2.2.2, 10.1.1.1"], &["10.2.2.2", "10.1.1.1"], &[]];
        for headers in headers {
            assert_eq!(judged(&OriginTrust::default(), headers), "192.0.2.9", "{headers:?}");
        }
        let hop = OriginTrust { trusted_hops: 1, ..OriginTrust::default() };
        assert_eq!(judged(&hop, &["10.2.2.2, 10.1.1.1"]), "10.2.2.2", "whom the Listener says to believe is believed");
    }

    #[test]
    fn each_trusted_hop_is_one_step_towards_the_client() {
        let two: &[&str] = &["10.2.2.2, 10.1.1.1"];
        let split: &[&str] = &["10.3.3.3,10.2.2.2", "10.1.1.1"];
        for (remote, hops, headers, expected) in [
            (true, 0, two, "192.0.2.9"),
            (true, 1, two, "10.1.1.1"),
            (true, 2, two, "10.2.2.2"),
            (true, 3, two, "192.0.2.9"),
            (false, 0, two, "10.1.1.1"),
            (false, 1, two, "10.2.2.2"),
            (false, 2, two, "192.0.2.9"),
            (false, u32::MAX, two, "192.0.2.9"),
            (false, 0, split, "10.1.1.1"),
            (false, 1, split, "10.2.2.2"),
            (false, 2, split, "10.3.3.3"),
            (false, 0, &[], "192.0.2.9"),
            (false, 0, &["::ffff:10.1.1.1"], "::ffff:10.1.1.1"),
            (false, 0, &["fe80::1%eth0"], "fe80::1"),
            (false, 0, &["2001:db8::1"], "2001:db8::1"),
        ] {
            assert_eq!(of(remote, hops, headers), expected, "{remote} {hops} {headers:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_not_believed_and_nothing_before_it_either() {
        for header in ["fe80::1%", "10.1.1.1%eth0", "10.1.1.1, ", "10.1.1.1, unknown", "10.1.1.1:80", "10.1.1", ""] {
            assert_eq!(of(false, 0, &[header]), "192.0.2.9", "{header}");
        }
    }
}
