//! Query parameters that are added and removed. What Envoy 1.40 makes of each, it was asked.

use http::{HeaderValue, Version};

use super::Request;
use crate::model::{AppendAction, QueryStep};
use crate::route::format::FormatFacts;
use crate::route::query::mutate_query;

fn append(name: &str, value: &str, action: AppendAction) -> QueryStep {
    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
    QueryStep::Append { name: name.to_owned(), value, action }
}

fn done(path: &str, steps: &[QueryStep]) -> String {
    let request = Request::get(path).with("x-h", "a b&c");
    let facts = FormatFacts {
        request: request.facts(),
        version: Version::HTTP_11,
        remote: None,
        local: None,
        peer: None,
        status: None,
    };
    mutate_query(steps, &request.headers, &facts).unwrap().to_string()
}

#[test]
fn each_action_does_to_a_query_what_it_does_in_envoy() {
    use AppendAction::{AddIfAbsent, AppendOrAdd, OverwriteIfExists, OverwriteOrAdd};
    // In this order: append, add if absent, overwrite or add, overwrite if it is there, remove.
    for (path, expected) in [
        ("/p", ["/p?a=new", "/p?a=new", "/p?a=new", "/p", "/p"]),
        ("/p?", ["/p?a=new", "/p?a=new", "/p?a=new", "/p", "/p"]),
        ("/p?b=2&a=1", ["/p?a=1&a=new&b=2", "/p?a=1&b=2", "/p?a=new&b=2", "/p?a=new&b=2", "/p?b=2"]),
        ("/p?a=1&a=2", ["/p?a=1&a=2&a=new", "/p?a=1&a=2", "/p?a=new", "/p?a=new", "/p"]),
        ("/p?a", ["/p?a=&a=new", "/p?a=", "/p?a=new", "/p?a=new", "/p"]),
        ("/p?b=1+2", ["/p?a=new&b=1+2", "/p?a=new&b=1+2", "/p?a=new&b=1+2", "/p?b=1+2", "/p?b=1+2"]),
        ("/p?&&a=1&", ["/p?=&=&a=1&a=new", "/p?=&=&a=1", "/p?=&=&a=new", "/p?=&=&a=new", "/p?=&="]),
        ("/p?=x", ["/p?=x&a=new", "/p?=x&a=new", "/p?=x&a=new", "/p?=x", "/p?=x"]),
        ("/p?z=1&A=2", ["/p?A=2&a=new&z=1", "/p?A=2&a=new&z=1", "/p?A=2&a=new&z=1", "/p?A=2&z=1", "/p?A=2&z=1"]),
        ("/p?a=b=c", ["/p?a=b=c&a=new", "/p?a=b=c", "/p?a=new", "/p?a=new", "/p"]),
        ("/p?c=%zz", ["/p?a=new&c=%zz", "/p?a=new&c=%zz", "/p?a=new&c=%zz", "/p?c=%zz", "/p?c=%zz"]),
        ("/p?x=a/b?c", ["/p?a=new&x=a/b?c", "/p?a=new&x=a/b?c", "/p?a=new&x=a/b?c", "/p?x=a/b?c", "/p?x=a/b?c"]),
        ("/p?%61=%41", ["/p?a=A&a=new", "/p?a=A", "/p?a=new", "/p?a=new", "/p"]),
    ] {
        let actions = [AppendOrAdd, AddIfAbsent, OverwriteOrAdd, OverwriteIfExists];
        for (action, expected) in actions.into_iter().zip(expected) {
            assert_eq!(done(path, &[append("a", "new", action)]), expected, "{path} {action:?}");
        }
        assert_eq!(done(path, &[QueryStep::Remove("a".to_owned())]), expected[4], "{path}");
    }
}

#[test]
fn values_are_made_of_the_request_and_encoded() {
    let add = |name, value| append(name, value, AppendAction::AppendOrAdd);
    for (value, expected) in [
        ("%REQ(x-h)%", "a%20b%26c"),
        ("%REQ(nope)%", ""),
        ("%REQ(:path)%", "%2Fp%3Fq%3D1"),
        ("x&y=z#f?%%25", "x%26y%3Dz%23f%3F%2525"),
        ("+~*'()!-._", "%2B%7E*%27%28%29%21-._"),
        ("\u{e9}", "%C3%A9"),
    ] {
        assert_eq!(done("/p?q=1", &[add("a", value)]), format!("/p?a={expected}&q=1"));
    }
    let steps = [add("a", "1"), QueryStep::Remove("a".to_owned()), add("a", "2")];
    assert_eq!(done("/p?a=0", &steps), "/p?a=2");
}

/// Where Envoy writes what is another query or none at all.
#[test]
fn what_would_be_another_query_stays_encoded() {
    let new = append("k", "v", AppendAction::AppendOrAdd);
    assert_eq!(done("/p?b=%3c%3D%26%2B%23%25%20%e9", &[new]), "/p?b=%3c%3D%26%2B%23%25%20%e9&k=v");
    let new = append("a b&c=d#\u{e9}", "v", AppendAction::AppendOrAdd);
    assert_eq!(done("/p?a%20b=1&a+b=2", &[new]), "/p?a%20b=1&a%20b%26c%3Dd%23%C3%A9=v&a+b=2");
    assert_eq!(done("/p?a%20b=1&a+b=2", &[QueryStep::Remove("a b".to_owned())]), "/p?a+b=2");
}
