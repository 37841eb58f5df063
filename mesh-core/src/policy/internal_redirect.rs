//! Whether a redirect is followed by the mesh, and the request that follows it (Envoy's internal redirects).

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::model::{InternalRedirect, Name, RedirectPredicate};

/// The URL that the server which redirects was asked for (Envoy).
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// The redirects that a request has followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    followed: u32,
    /// From which route to which, where a policy asks (`previous_routes`).
    steps: Vec<(Name, Name)>,
}

/// The head of a request that was redirected: as it left, or as it goes on.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The URI.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
}

/// A redirect that is followed.
#[derive(Debug)]
pub struct Onward {
    /// The request that follows it.
    pub head: RequestHead,
    /// Whether it goes without the body: after a 303.
    pub drop_body: bool,
    /// It, and those before it.
    pub trail: Trail,
}

/// Why a redirect is the caller's to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFollowed {
    /// There is no `location`, more than one, or one that is no whole URL of `http` or `https`.
    Location,
    /// It changes the scheme.
    Scheme,
    /// The request has followed enough of them.
    TooMany,
    /// No route takes the new request.
    NoRoute,
    /// A predicate does not agree to the new route.
    Predicate,
}

impl fmt::Display for NotFollowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Location => "its location is not one URL of http or https",
            Self::Scheme => "it changes the scheme, which allow_cross_scheme_redirect does not allow",
            Self::TooMany => "the request has followed max_internal_redirects before",
            Self::NoRoute => "no route of the table takes the new request",
            Self::Predicate => "a predicate of the policy does not agree to the new route",
        })
    }
}

/// Whether `policy` is about a response of `status`.
pub fn is_meant(policy: &InternalRedirect, status: StatusCode) -> bool {
    policy.codes.contains(&status)
}

/// Whether a request can be sent elsewhere at all: a tunnel is none, nor one that becomes another protocol's.
pub fn can_follow(method: &Method, headers: &HeaderMap) -> bool {
    *method != Method::CONNECT && !headers.contains_key(UPGRADE)
}

/// Follows the redirect of a `response`, of a status that `policy` names, to a request that left as `sent` by the route `from`.
///
/// `scheme` is the scheme of `sent`, `host` its authority, and `route` the name of the route that takes a request.
///
/// # Errors
///
/// Why it is the caller's to follow.
pub fn follow(
    policy: &InternalRedirect,
    (from, trail): (&Name, &Trail),
    (sent, scheme, host): (&RequestHead, &str, &str),
    (status, response): (StatusCode, &HeaderMap),
    route: impl FnOnce(&RequestHead) -> Option<Name>,
) -> Result<Onward, NotFollowed> {
    let target = target(response).ok_or(NotFollowed::Location)?;
    let crosses = (scheme == "https", target.scheme() == Some(&Scheme::HTTPS));
    if !policy.cross_scheme && crosses.0 != crosses.1 {
        return Err(NotFollowed::Scheme);
    }
    if trail.followed >= policy.max {
        return Err(NotFollowed::TooMany);
    }
    let mut head = RequestHead { uri: target, ..sent.clone() };
    // The authority is the URI's now.
    head.headers.remove(HOST);
    copy(&policy.copied_headers, response, &mut head.headers);
    let to = route(&head).ok_or(NotFollowed::NoRoute)?;
    let mut trail = trail.clone();
    if !policy.predicates.iter().all(|predicate| agrees(predicate, from, &to, crosses, &mut trail)) {
        return Err(NotFollowed::Predicate);
    }
    trail.followed += 1;
    // RFC 9110, 15.4.4: what is asked for there is got.
    let drop_body = status == StatusCode::SEE_OTHER && !matches!(sent.method, Method::GET | Method::HEAD);
    if drop_body {
        head.method = Method::GET;
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
    }
    let path = sent.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if let Ok(original) = HeaderValue::try_from(format!("{scheme}://{host}{path}")) {
        head.headers.insert(ORIGINAL_URL, original);
    }
    Ok(Onward { head, drop_body, trail })
}

/// The URL that the response points to, without a fragment and whoever is said to ask.
fn target(response: &HeaderMap) -> Option<Uri> {
    let mut values = response.get_all(LOCATION).iter();
    // Of two, everybody may take another one.
    let only = values.next().filter(|_| values.next().is_none())?;
    let uri = Uri::try_from(only.as_bytes()).ok()?;
    let scheme = [Scheme::HTTP, Scheme::HTTPS]
        .into_iter()
        .find(|known| uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case(known.as_str())))?;
    let authority = uri.authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let authority = Authority::try_from(host).ok().filter(|authority| !authority.host().is_empty())?;
    let path = match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        query if query.starts_with('?') => PathAndQuery::try_from(format!("/{query}")).ok()?,
        path => PathAndQuery::try_from(path).ok()?,
    };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

/// The request's headers of these names become the response's. How a message is framed, its own body says.
fn copy(names: &[HeaderName], response: &HeaderMap, request: &mut HeaderMap) {
    let framing = [CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE];
    for name in names.iter().filter(|name| !framing.contains(name)) {
        request.remove(name);
        for value in response.get_all(name) {
            request.append(name, value.clone());
        }
    }
}

fn agrees(
    predicate: &RedirectPredicate,
    from: &Name,
    to: &Name,
    (from_tls, to_tls): (bool, bool),
    trail: &mut Trail,
) -> bool {
    match predicate {
        RedirectPredicate::AllowListed(names) => names.contains(to),
        RedirectPredicate::SafeCrossScheme => from_tls || !to_tls,
        RedirectPredicate::PreviousRoutes => {
            let known = trail.steps.iter().any(|(before, after)| before == from && after == to);
            trail.steps.push((from.clone(), to.clone()));
            !known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn sent(method: Method) -> RequestHead {
        let headers = headers(&[("host", "old.test"), ("x-kept", "1"), ("x-copy", "old"), ("content-length", "5")]);
        RequestHead { method, uri: "http://h.test/one?y=2".parse().unwrap(), headers }
    }

    /// Follows a redirect with these headers, of a GET by route `one`, to a route that has the path for a name.
    fn ask(policy: &InternalRedirect, response: &[(&'static str, &str)]) -> Result<Onward, NotFollowed> {
        ask_by(policy, &Trail::default(), (Method::GET, StatusCode::FOUND), response)
    }

    fn ask_by(
        policy: &InternalRedirect,
        trail: &Trail,
        (method, status): (Method, StatusCode),
        response: &[(&'static str, &str)],
    ) -> Result<Onward, NotFollowed> {
        let named = |head: &RequestHead| {
            let path = head.uri.path();
            (path != "/nowhere").then(|| path.trim_start_matches('/').into())
        };
        let (sent, response) = (sent(method), headers(response));
        follow(policy, (&"one".into(), trail), (&sent, "http", "h.test"), (status, &response), named)
    }

    fn to(location: &str) -> Result<String, NotFollowed> {
        ask(&InternalRedirect::default(), &[("location", location)]).map(|onward| onward.head.uri.to_string())
    }

    #[test]
    fn where_it_leads_is_one_whole_url() {
        for (location, uri) in [
            ("http://h.test/two", "http://h.test/two"),
            ("http://h.test/two?q=1#f", "http://h.test/two?q=1"),
            ("http://u:p@h.test/two", "http://h.test/two"),
            ("HTTP://H.test/two", "http://H.test/two"),
            ("http://h.test:81/two", "http://h.test:81/two"),
            ("http://h.test", "http://h.test/"),
            ("http://h.test?x=1", "http://h.test/?x=1"),
        ] {
            assert_eq!(to(location).as_deref(), Ok(uri), "{location}");
        }
        for location in
            ["/two", "two", "?x=1", "", "//h.test/two", "http://", "http:///two", "ftp://h.test/two", "http://@/"]
        {
            assert_eq!(to(location), Err(NotFollowed::Location), "{location}");
        }
        assert_eq!(to("http://h.test/nowhere"), Err(NotFollowed::NoRoute));
        let policy = InternalRedirect::default();
        assert_eq!(ask(&policy, &[]).unwrap_err(), NotFollowed::Location);
        let two = [("location", "http://h.test/two"), ("location", "http://h.test/three")];
        assert_eq!(ask(&policy, &two).unwrap_err(), NotFollowed::Location);
    }

    #[test]
    fn the_request_goes_on_as_it_was_and_says_where_from() {
        let onward = ask(&InternalRedirect::default(), &[("location", "http://h.test/two")]).unwrap();
        assert_eq!(onward.head.method, Method::GET);
        assert_eq!(onward.head.headers["x-kept"], "1");
        assert_eq!(onward.head.headers["x-envoy-original-url"], "http://h.test/one?y=2");
        assert!(!onward.head.headers.contains_key("host") && !onward.drop_body);
    }

    #[test]
    fn only_a_303_makes_a_get_of_another_request() {
        let location = [("location", "http://h.test/two")];
        for (method, status, after, drop_body) in [
            (Method::POST, 303, Method::GET, true),
            (Method::PUT, 303, Method::GET, true),
            (Method::HEAD, 303, Method::HEAD, false),
            (Method::GET, 303, Method::GET, false),
            (Method::POST, 302, Method::POST, false),
            (Method::POST, 307, Method::POST, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let asked = (method, status);
            let onward = ask_by(&InternalRedirect::default(), &Trail::default(), asked, &location).unwrap();
            let length = onward.head.headers.contains_key("content-length");
            assert_eq!((onward.head.method, onward.drop_body, length), (after, drop_body, !drop_body), "{status}");
        }
    }

    #[test]
    fn a_request_follows_no_more_than_the_policy_of_each_route_allows() {
        let location = [("location", "http://h.test/two")];
        let get = || (Method::GET, StatusCode::FOUND);
        let at_most = |max| InternalRedirect { max, ..InternalRedirect::default() };
        let first = ask(&at_most(1), &location).unwrap().trail;
        assert_eq!(ask(&at_most(0), &location).unwrap_err(), NotFollowed::TooMany);
        assert_eq!(ask_by(&at_most(1), &first, get(), &location).unwrap_err(), NotFollowed::TooMany);
        let second = ask_by(&at_most(2), &first, get(), &location).unwrap().trail;
        assert_eq!(ask_by(&at_most(2), &second, get(), &location).unwrap_err(), NotFollowed::TooMany);
    }

    #[test]
    fn another_scheme_needs_leave_and_plaintext_gets_nothing_from_tls_where_that_is_unsafe() {
        let policy = |cross_scheme, predicates: &[RedirectPredicate]| InternalRedirect {
            cross_scheme,
            predicates: predicates.to_vec(),
            ..InternalRedirect::default()
        };
        let https = [("location", "https://h.test/two")];
        assert_eq!(ask(&policy(false, &[]), &https).unwrap_err(), NotFollowed::Scheme);
        assert_eq!(ask(&policy(true, &[]), &https).unwrap().head.uri, "https://h.test/two");
        let safe = policy(true, &[RedirectPredicate::SafeCrossScheme]);
        assert_eq!(ask(&safe, &https).unwrap_err(), NotFollowed::Predicate);
        assert!(ask(&safe, &[("location", "http://h.test/two")]).is_ok());
        let (sent, response) = (sent(Method::GET), headers(&[("location", "http://h.test/two")]));
        let start = Trail::default();
        let from_tls = (&sent, "https", "h.test");
        let redirect = (StatusCode::FOUND, &response);
        assert!(follow(&safe, (&"one".into(), &start), from_tls, redirect, |_| Some("two".into())).is_ok());
    }

    #[test]
    fn predicates_judge_the_new_route() {
        let with = |predicate| InternalRedirect { max: 9, predicates: vec![predicate], ..InternalRedirect::default() };
        let listed = with(RedirectPredicate::AllowListed(vec!["two".into()]));
        assert!(ask(&listed, &[("location", "http://h.test/two")]).is_ok());
        assert_eq!(ask(&listed, &[("location", "http://h.test/three")]).unwrap_err(), NotFollowed::Predicate);
        // The same way once, any other way once.
        let once = with(RedirectPredicate::PreviousRoutes);
        let get = || (Method::GET, StatusCode::FOUND);
        let trail = ask(&once, &[("location", "http://h.test/two")]).unwrap().trail;
        let again = ask_by(&once, &trail, get(), &[("location", "http://h.test/two")]);
        assert_eq!(again.unwrap_err(), NotFollowed::Predicate);
        assert!(ask_by(&once, &trail, get(), &[("location", "http://h.test/three")]).is_ok());
    }

    #[test]
    fn headers_are_copied_and_those_that_are_not_there_go() {
        let names = ["x-copy", "x-kept", "content-length", "transfer-encoding"].map(HeaderName::from_static).to_vec();
        let policy = InternalRedirect { copied_headers: names, ..InternalRedirect::default() };
        let response = [
            ("location", "http://h.test/two"),
            ("x-copy", "1"),
            ("x-copy", "2"),
            ("content-length", "0"),
            ("transfer-encoding", "chunked"),
        ];
        let headers = ask(&policy, &response).unwrap().head.headers;
        assert!(headers.get_all("x-copy").iter().eq(["1", "2"]) && !headers.contains_key("x-kept"));
        // A response's frame is not the request's.
        assert_eq!(headers["content-length"], "5");
        assert!(!headers.contains_key("transfer-encoding"));
    }

    #[test]
    fn tunnels_and_upgrades_are_not_sent_elsewhere() {
        assert!(can_follow(&Method::POST, &HeaderMap::new()));
        assert!(!can_follow(&Method::CONNECT, &HeaderMap::new()));
        assert!(!can_follow(&Method::GET, &headers(&[("upgrade", "websocket")])));
    }
}
