//! The indexes decide as a scan of the whole table would.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{ByteRegex, Fraction};
use crate::route::RouteIndex;

/// Paths over a small alphabet, so that prefixes meet.
fn path() -> impl Strategy<Value = String> {
    "/[abAB/.]{0,6}"
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let regex = prop_oneof![
        path().prop_map(|path| path.replace('.', r"\.")),
        path().prop_map(|path| format!("{path}.*")),
        path().prop_map(|path| format!("{path}+")),
        path().prop_map(|path| format!("{path}?")),
        (path(), path()).prop_map(|(a, b)| format!("{a}|{b}")),
        path().prop_map(|path| format!(".*{path}")),
        path().prop_map(|path| format!("/.{path}")),
        (path(), path()).prop_map(|(a, b)| format!("(?i){a}({b}|x)")),
    ];
    prop_oneof![
        path().prop_map(PathMatch::Prefix),
        Just(PathMatch::Prefix(String::new())),
        path().prop_map(PathMatch::Exact),
        path().prop_map(|path| PathMatch::SeparatedPrefix(path.trim_end_matches('/').into())),
        regex.prop_map(|pattern| PathMatch::Regex(ByteRegex::new(&pattern).unwrap())),
    ]
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    (path_match(), any::<bool>(), prop::option::weighted(0.3, 0..100_u32)).prop_map(|(path, case_sensitive, share)| {
        let fraction = share.map(|numerator| Fraction { numerator, denominator: 100 });
        RouteMatch { path, case_sensitive, fraction, ..any_path() }
    })
}

proptest! {
    #[test]
    fn the_path_index_takes_the_route_that_a_scan_takes(
        matches in prop::collection::vec(route_match(), 0..40),
        paths in prop::collection::vec("/[abAB/.?]{0,8}", 1..20),
        random: u64,
    ) {
        let routes: Vec<_> = matches.into_iter().enumerate().map(|(n, m)| to(&n.to_string(), m)).collect();
        let index = RouteIndex::new(Arc::new(table(vec![host("all", &["*"], routes.clone())])));
        for path in paths {
            let request = Request::get(&path);
            let scan = routes.iter().find(|route| route.matches.mismatch(&request.facts(), random).is_none());
            let decided = index.decide("x", &request.facts(), random).ok().map(|decision| decision.route);
            prop_assert_eq!(decided.map(|route| route.name.clone()), scan.map(|route| route.name.clone()), "{}", path);
            let explained = index.explain("x", &request.facts(), random).decision.ok();
            prop_assert_eq!(explained.map(|decision| decision.route.name.clone()), scan.map(|r| r.name.clone()));
        }
    }

    #[test]
    fn the_host_index_takes_the_virtual_host_that_a_scan_takes(
        domains in prop::collection::vec("[ab.]{1,5}|\\*[ab.]{1,4}|[ab.]{1,4}\\*|\\*", 0..30),
        authorities in prop::collection::vec("[abAB.]{0,7}", 1..20),
    ) {
        let hosts: Vec<_> = domains.iter().map(|domain| host(domain, &[domain], Vec::new())).collect();
        let index = RouteIndex::new(Arc::new(table(hosts.clone())));
        for authority in authorities {
            let found = index.virtual_host(&authority).map(|host| host.name.clone());
            prop_assert_eq!(found, scan(&hosts, &authority.to_ascii_lowercase()), "{}", authority);
        }
    }
}

/// Spec 4.1, word for word: class, then length, then order.
fn scan(hosts: &[Arc<VirtualHost>], authority: &str) -> Option<crate::model::Name> {
    let rank = |domain: &Domain| match domain {
        Domain::Exact(name) => (authority == name).then_some((0, 0)),
        Domain::Suffix(end) if authority.ends_with(end) && authority.len() > end.len() => {
            Some((1, usize::MAX - end.len()))
        }
        Domain::Prefix(start) if authority.starts_with(start) && authority.len() > start.len() => {
            Some((2, usize::MAX - start.len()))
        }
        Domain::Any => Some((3, 0)),
        _ => None,
    };
    let ranked = hosts.iter().filter_map(|host| Some((rank(&host.domains[0])?, host)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, host)| host.name.clone())
}
