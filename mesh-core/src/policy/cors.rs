//! Cross-origin requests: which a policy allows, and what responses say of it (Envoy's CORS filter).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::model::Cors;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What a policy says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsVerdict {
    /// It is not for CORS, or from an origin that is not allowed: browsers keep its response from the page.
    Pass,
    /// It is allowed: its response gets these headers, in place of its own.
    Allow(HeaderMap),
    /// It is a preflight: answer 200 with these headers.
    Preflight(HeaderMap),
}

/// What `policy` says to a request. `draw` decides the share of requests that it is on for.
pub fn cors(policy: &Cors, method: &Method, headers: &HeaderMap, draw: u64) -> CorsVerdict {
    let origin = headers.get(ORIGIN).filter(|origin| !origin.is_empty());
    let Some(origin) = origin.filter(|_| policy.enabled.contains(draw)) else { return CorsVerdict::Pass };
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|asked| !asked.is_empty());
    let preflight = asked.filter(|_| method == Method::OPTIONS);
    match (is_allowed(policy, origin), preflight) {
        (true, None) => CorsVerdict::Allow(of_response(policy, origin)),
        (true, Some(asked)) => CorsVerdict::Preflight(of_preflight(policy, origin, asked, headers)),
        (false, Some(_)) if policy.forward_not_matching_preflights == Some(false) => {
            CorsVerdict::Preflight(HeaderMap::new())
        }
        (false, _) => CorsVerdict::Pass,
    }
}

/// The policy of several levels, the most specific last: each field is the most specific one's that says it, but whether the
/// policy is on is the last one's alone (Envoy).
pub fn merged<'a>(levels: impl DoubleEndedIterator<Item = &'a Cors>) -> Option<Cors> {
    let mut levels = levels.rev();
    let mut all = levels.next()?.clone();
    for less in levels {
        fill(&mut all.allow_methods, &less.allow_methods);
        fill(&mut all.allow_headers, &less.allow_headers);
        fill(&mut all.expose_headers, &less.expose_headers);
        fill(&mut all.max_age, &less.max_age);
        if all.allow_origins.is_empty() {
            all.allow_origins.clone_from(&less.allow_origins);
        }
        all.allow_credentials = all.allow_credentials.or(less.allow_credentials);
        all.allow_private_network = all.allow_private_network.or(less.allow_private_network);
        all.forward_not_matching_preflights =
            all.forward_not_matching_preflights.or(less.forward_not_matching_preflights);
    }
    Some(all)
}

fn fill(text: &mut String, less: &str) {
    if text.is_empty() {
        less.clone_into(text);
    }
}

fn is_allowed(policy: &Cors, origin: &HeaderValue) -> bool {
    // What would match a star allows everybody.
    policy.allow_origins.iter().any(|allowed| allowed.is_match(b"*") || allowed.is_match(origin.as_bytes()))
}

/// What the answer to a preflight says, too.
fn of_response(policy: &Cors, origin: &HeaderValue) -> HeaderMap {
    let mut out = HeaderMap::new();
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials == Some(true) {
        out.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    insert(&mut out, ACCESS_CONTROL_EXPOSE_HEADERS, &policy.expose_headers);
    out
}

fn of_preflight(policy: &Cors, origin: &HeaderValue, method: &HeaderValue, headers: &HeaderMap) -> HeaderMap {
    let mut out = of_response(policy, origin);
    // A star means whatever is asked for: with credentials browsers would take it as a name.
    let mut allow = |name: HeaderName, allowed: &str, asked: Option<&HeaderValue>| match asked {
        Some(asked) if allowed == "*" => drop(out.insert(name, asked.clone())),
        _ => insert(&mut out, name, allowed),
    };
    allow(ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods, Some(method));
    allow(ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers, headers.get(ACCESS_CONTROL_REQUEST_HEADERS));
    insert(&mut out, ACCESS_CONTROL_MAX_AGE, &policy.max_age);
    if policy.allow_private_network == Some(true) && headers.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE) {
        out.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    out
}

fn insert(out: &mut HeaderMap, name: HeaderName, value: &str) {
    // The decoder has refused what is no header value.
    if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
        out.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fraction, Pattern, StringMatch};

    fn policy(origin: &str) -> Cors {
        Cors {
            allow_origins: vec![StringMatch { pattern: Pattern::Exact(origin.to_owned()), ignore_case: false }],
            allow_methods: "GET,PUT".to_owned(),
            allow_headers: "*".to_owned(),
            expose_headers: "x-e".to_owned(),
            max_age: String::new(),
            allow_credentials: Some(true),
            enabled: Fraction::ALWAYS,
            shadow: Fraction::ALWAYS,
            allow_private_network: Some(true),
            forward_not_matching_preflights: None,
        }
    }

    fn run(policy: &Cors, method: &Method, headers: &[(&'static str, &'static str)]) -> CorsVerdict {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        cors(policy, method, &headers, 0)
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn an_allowed_origin_is_told_so_and_others_are_not() {
        let policy = policy("https://a.test");
        let CorsVerdict::Allow(headers) = run(&policy, &Method::GET, &[("origin", "https://a.test")]) else { panic!() };
        assert_eq!(
            lines(&headers),
            [
                "access-control-allow-origin: https://a.test",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-e"
            ]
        );
        for headers in [&[][..], &[("origin", "https://A.test")], &[("origin", "")]] {
            assert_eq!(run(&policy, &Method::GET, headers), CorsVerdict::Pass, "{headers:?}");
        }
        let off = Cors { enabled: Fraction { numerator: 0, denominator: 100 }, ..policy };
        assert_eq!(run(&off, &Method::GET, &[("origin", "https://a.test")]), CorsVerdict::Pass);
    }

    #[test]
    fn levels_fill_in_for_each_other_field_by_field() {
        let none = Cors {
            allow_origins: Vec::new(),
            allow_methods: String::new(),
            allow_headers: String::new(),
            expose_headers: String::new(),
            allow_credentials: None,
            allow_private_network: None,
            ..policy("unused")
        };
        let host = Cors { max_age: "60".to_owned(), ..policy("https://a.test") };
        let route = Cors { allow_methods: "PATCH".to_owned(), allow_credentials: Some(false), ..none.clone() };
        let both = merged([&host, &route].into_iter()).unwrap();
        assert_eq!((both.allow_methods.as_str(), both.max_age.as_str()), ("PATCH", "60"));
        assert_eq!((both.allow_credentials, both.allow_private_network), (Some(false), Some(true)));
        assert_eq!(both.allow_origins, host.allow_origins);
        let off = Cors { enabled: Fraction { numerator: 0, denominator: 100 }, ..none };
        assert_eq!(merged([&host, &off].into_iter()).unwrap().enabled.numerator, 0, "the route's alone");
        assert_eq!(merged(std::iter::empty()), None);
    }

    #[test]
    fn a_preflight_is_answered_in_the_applications_place() {
        let asks = [
            ("origin", "https://a.test"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a"),
            ("access-control-request-private-network", "true"),
        ];
        let CorsVerdict::Preflight(headers) = run(&policy("*"), &Method::OPTIONS, &asks) else { panic!() };
        assert_eq!(
            lines(&headers),
            [
                "access-control-allow-origin: https://a.test",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-e",
                "access-control-allow-methods: GET,PUT",
                "access-control-allow-headers: x-a",
                "access-control-allow-private-network: true",
            ]
        );
        assert!(matches!(run(&policy("*"), &Method::PUT, &asks), CorsVerdict::Allow(_)), "PUT is no preflight");
        assert!(matches!(run(&policy("*"), &Method::OPTIONS, &asks[..1]), CorsVerdict::Allow(_)), "nor is this");
    }

    #[test]
    fn a_strangers_preflight_is_the_applications_unless_the_policy_keeps_it() {
        let asks = [("origin", "https://b.test"), ("access-control-request-method", "PUT")];
        let forward = policy("https://a.test");
        assert_eq!(run(&forward, &Method::OPTIONS, &asks), CorsVerdict::Pass);
        let keep = Cors { forward_not_matching_preflights: Some(false), ..forward };
        assert_eq!(run(&keep, &Method::OPTIONS, &asks), CorsVerdict::Preflight(HeaderMap::new()));
    }
}
