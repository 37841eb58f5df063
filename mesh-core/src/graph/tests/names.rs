//! Clusters whose endpoints DNS knows (gRFC A37).

use super::*;
use crate::dns::{Addresses, Again, key};
use crate::publish::Publisher;
use crate::resource::HOST;

const KNOWN: &str = "0.0.0.0:0";

fn by_dns(hosts: &[&str], refresh: Option<Duration>) -> Arc<DnsEndpoints> {
    let like = |host: &str| Endpoint {
        address: KNOWN.parse().expect("an address"),
        additional: Vec::new(),
        weight: 7,
        health: Health::Healthy,
        hostname: host.into(),
        metadata: Metadata::new(),
    };
    let locality = LocalityEndpoints {
        locality: Arc::default(),
        priority: 0,
        weight: 1,
        metadata: Metadata::new(),
        endpoints: hosts.iter().map(|host| like(host)).collect(),
    };
    let like = Endpoints { localities: vec![locality], drops: Vec::new(), overprovisioning_factor: 140 };
    let hosts = hosts.iter().map(|host| DnsHost { host: (*host).to_owned(), port: 80 }).collect();
    Arc::new(DnsEndpoints { hosts, like, family: DnsFamily::All, refresh })
}

fn logical(host: &str) -> Arc<DnsEndpoints> {
    by_dns(&[host], None)
}

impl Story {
    fn to(name: &str, value: ResourceValue) -> Self {
        let mut story = Self::of("svc");
        story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&[name]))));
        story.says(CLUSTER, name, value);
        story
    }

    fn resolves(&mut self, of: &DnsEndpoints, host: usize, addresses: &[&str]) {
        let list = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let again = Again::new(Arc::new(Publisher::new(Arc::new(()))));
        self.says(HOST, &key(&of.hosts[host], of).name.clone(), Arc::new(Addresses { list, again }));
    }

    fn cannot_resolve(&mut self, of: &DnsEndpoints, host: usize) {
        let (key, error) = (key(&of.hosts[host], of), Error::new(Code::UNRESOLVED, "DNS gives no address"));
        self.graph.handle_event(ResourceEvent::Unusable { key, error }, self.now);
        self.settle();
    }

    fn config(&self, cluster: &str) -> Arc<crate::snapshot::ClusterConfig> {
        self.latest.as_ref().expect("published").clusters[cluster].clone().expect("a cluster")
    }

    /// The endpoints as text, and the code of what is wrong with them.
    fn found(&self, cluster: &str) -> (Vec<String>, Option<Code>) {
        let config = self.config(cluster);
        let Children::Endpoints { endpoints, note, .. } = &config.children else { panic!("no endpoints") };
        let all = endpoints.localities.iter().flat_map(|locality| locality.endpoints.iter());
        let shown = all.map(|endpoint| {
            assert_eq!(endpoint.weight, 7, "what is said of the name holds for its addresses");
            format!("{} {} {:?}", endpoint.hostname, endpoint.address, endpoint.additional)
        });
        (shown.collect(), note.as_ref().map(Error::code))
    }
}

#[test]
fn a37_a_logical_name_is_waited_for_and_all_its_addresses_are_one_endpoint() {
    let of = logical("blue.test");
    let mut story = Story::to("a", cluster("a", DiscoveryKind::LogicalDns(of.clone())));
    assert!(story.subscribed.contains(&key(&of.hosts[0], &of)) && story.latest.is_none());
    story.resolves(&of, 0, &["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(story.found("a"), (vec!["blue.test 10.0.0.1:80 [10.0.0.2:80]".to_owned()], None));
    assert_eq!(story.config("a").names.len(), 1);
    let before = story.config("a");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["a"]))));
    assert!(Arc::ptr_eq(&before, &story.config("a")), "what did not change is the same");
    story.resolves(&of, 0, &["10.0.0.3:80"]);
    assert_eq!(story.found("a").0, ["blue.test 10.0.0.3:80 []"]);
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&[]))));
    drop(before);
    (story.latest, story.updates) = (None, Vec::new());
    story.later(Duration::from_secs(1));
    assert!(!story.subscribed.contains(&key(&of.hosts[0], &of)), "nobody needs it any more");
}

#[test]
fn a37_a_name_that_cannot_be_found_leaves_its_cluster_without_endpoints_and_says_why() {
    let of = logical("blue.test");
    let mut story = Story::to("a", cluster("a", DiscoveryKind::LogicalDns(of.clone())));
    story.cannot_resolve(&of, 0);
    assert_eq!(story.found("a"), (vec![], Some(Code::UNRESOLVED)));
    story.resolves(&of, 0, &["10.0.0.1:80"]);
    assert_eq!(story.found("a"), (vec!["blue.test 10.0.0.1:80 []".to_owned()], None));
}

#[test]
fn a37_a_leaf_of_an_aggregate_may_be_a_name() {
    let of = logical("blue.test");
    let mut story = Story::to("all", cluster("all", DiscoveryKind::Aggregate(vec!["eds".into(), "dns".into()])));
    story.says(CLUSTER, "eds", eds("eds"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "eds", endpoints(1));
    story.says(CLUSTER, "dns", cluster("dns", DiscoveryKind::LogicalDns(of.clone())));
    assert!(story.latest.is_none(), "the name is waited for, too");
    story.resolves(&of, 0, &["10.0.0.1:80"]);
    let all = story.config("all");
    assert!(matches!(&all.children, Children::Leaves(names) if names.iter().map(|name| &**name).eq(["eds", "dns"])));
    assert_eq!(story.found("dns").0, ["blue.test 10.0.0.1:80 []"]);
}

#[test]
fn each_address_of_strict_names_is_an_endpoint_and_a_name_that_fails_fails_alone() {
    let of = by_dns(&["blue.test", "green.test"], Some(Duration::from_secs(5)));
    let mut story = Story::to("a", cluster("a", DiscoveryKind::StrictDns(of.clone())));
    story.resolves(&of, 0, &["10.0.0.1:80", "10.0.0.2:80"]);
    assert!(story.latest.is_none(), "every name is waited for");
    story.cannot_resolve(&of, 1);
    let blue = ["blue.test 10.0.0.1:80 []".to_owned(), "blue.test 10.0.0.2:80 []".to_owned()];
    assert_eq!(story.found("a"), (blue.to_vec(), Some(Code::UNRESOLVED)));
    story.resolves(&of, 1, &["10.0.0.2:80", "10.0.0.3:80"]);
    let both = [&blue[..], &["green.test 10.0.0.3:80 []".to_owned()]].concat();
    assert_eq!(story.found("a"), (both, None), "a server of two names is one");
}

#[test]
fn the_family_of_a_name_says_which_addresses_count() {
    let all = ["[::2]:80", "10.0.0.1:80"].map(|address| address.parse().expect("an address"));
    let six = [all[0]];
    for (family, given, used) in [
        (DnsFamily::All, &all[..], &all[..]),
        (DnsFamily::V4Only, &all[..], &all[1..]),
        (DnsFamily::V6Only, &all[..], &all[..1]),
        (DnsFamily::V4Preferred, &all[..], &all[1..]),
        (DnsFamily::V4Preferred, &six[..], &six[..]),
        (DnsFamily::V4Only, &six[..], &[]),
    ] {
        let of = DnsEndpoints { family, ..(*by_dns(&["blue.test"], None)).clone() };
        let found = of.with(false, |_| given.to_vec());
        let found: Vec<_> = found.localities[0].endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(found, used, "{family:?}");
    }
}
