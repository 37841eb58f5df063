//! An application's own HTTP filter, by its own type URL, on the client's side.

use std::sync::Arc;

use http::{StatusCode, request, response};
use mesh_core::decode::{ExtensionValue, Fault, HttpFilterType, Side};
use mesh_core::error::{Code, Error};
use mesh_core::model::{FilterConfig, HttpFilter};
use serde_json::json;

use super::*;
use crate::filter::{Filter, FilterType, Verdict};
use crate::outbound::{OutboundFacts, OutboundFilters, OutboundOptions};
use crate::reply::Reply;

const TYPE: &str = "example.com.Stamp";

/// What both halves share: `{"text": ..}`.
#[derive(Debug)]
struct Stamp(String);

struct Decodes;

impl HttpFilterType for Decodes {
    fn type_url(&self) -> &str {
        TYPE
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Client
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        match value {
            ExtensionValue::Struct(fields) => match fields["text"].as_str() {
                Some(text) => Ok(Arc::new(Stamp(text.to_owned()))),
                None => Err(vec![Fault::new("text", "is missing")]),
            },
            ExtensionValue::Proto(_) => Err(vec![Fault::new("", "is no TypedStruct")]),
        }
    }
}

struct Builds;

impl FilterType<OutboundFacts> for Builds {
    fn type_url(&self) -> &str {
        TYPE
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<OutboundFacts>>, Error> {
        let config: &dyn std::any::Any = &**overrides.last().unwrap_or(&filter.config);
        let stamp = config.downcast_ref::<Stamp>().expect("the other half decoded it");
        Ok(Arc::new(Stamper(stamp.0.clone())))
    }
}

#[derive(Debug)]
struct Stamper(String);

impl Filter<OutboundFacts> for Stamper {
    fn on_request(&self, request: &mut request::Parts, facts: &OutboundFacts) -> Verdict {
        assert_eq!(facts.cluster.as_deref(), Some("one"));
        match self.0.as_str() {
            "no" => Verdict::Reply(Box::new(Reply::new(StatusCode::FORBIDDEN, "stamped"))),
            "panic" => panic!("on purpose"),
            "later" => Verdict::Wait(Box::pin(async {
                tokio::task::yield_now().await;
                Verdict::Change(Box::new(|request| {
                    request.headers.insert("x-stamp", "later".parse().unwrap());
                }))
            })),
            text => {
                request.headers.insert("x-stamp", text.parse().unwrap());
                Verdict::Continue
            }
        }
    }

    fn on_response(&self, response: &mut response::Parts, _facts: &OutboundFacts) {
        response.headers.insert("x-stamped", "yes".parse().unwrap());
    }
}

fn stamp(text: &str) -> Value {
    json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": format!("type.googleapis.com/{TYPE}"), "value": {"text": text}})
}

async fn client(one: &Backend) -> HttpClient {
    let route = |path: &str, text: &str| json!({"match": {"path": path}, "route": {"cluster": "one"}, "typed_per_filter_config": {"stamp": stamp(text)}});
    let mut it = listener(
        "a:80",
        &routes(&json!([route("/no", "no"), route("/panic", "panic"), route("/later", "later"),
            {"match": {"prefix": "/"}, "route": {"cluster": "one"}}])),
    );
    let filters = it["api_listener"]["api_listener"]["http_filters"].as_array_mut().unwrap();
    filters.insert(0, json!({"name": "stamp", "typed_config": stamp("plain")}));
    let options =
        OutboundOptions { filters: OutboundFilters::default().with(Arc::new(Builds)), ..OutboundOptions::default() };
    let source = MemorySource::new(encode(&[it, cluster("one", &[one.address])]));
    let mesh = Mesh::builder().source(source).filter_type(Arc::new(Decodes)).client_options(options).build().unwrap();
    mesh.http()
}

/// gRFC A39.
#[tokio::test]
async fn a_filter_of_the_application_sees_requests_and_responses() {
    let one = Backend::start("one").await;
    let client = client(&one).await;
    let response = client.get("http://a/").await.unwrap();
    assert_eq!(response.headers()["x-stamped"], "yes");
    assert_eq!(one.headers()["x-stamp"], "plain");
    client.get("http://a/later").await.unwrap();
    assert_eq!(one.headers()["x-stamp"], "later", "the route's override, in its own time");
    let refused = client.get("http://a/no").await.unwrap();
    assert_eq!((refused.status(), one.count()), (StatusCode::FORBIDDEN, 2));
}

#[tokio::test]
async fn a_panic_of_a_filter_fails_its_request_only() {
    let one = Backend::start("one").await;
    let client = client(&one).await;
    assert_eq!(code(client.get("http://a/panic").await), Code::FILTER_FAILED);
    assert_eq!(client.get("http://a/").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_listener_with_a_filter_that_cannot_be_applied_is_not_used() {
    let one = Backend::start("one").await;
    let mut it = listener("a:80", &routes(&to("one")));
    let filters = it["api_listener"]["api_listener"]["http_filters"].as_array_mut().unwrap();
    filters.insert(0, json!({"name": "stamp", "typed_config": stamp("plain")}));
    let source = MemorySource::new(encode(&[it, cluster("one", &[one.address])]));
    // Known to the decoder and to nobody who runs filters.
    let mesh = Mesh::builder().source(source).filter_type(Arc::new(Decodes)).build().unwrap();
    let error = mesh.http().get("http://a/").await.unwrap_err();
    assert_eq!(error.code(), Code::RESOURCE_REFUSED);
    assert!(error.to_string().contains(TYPE), "{error}");
    assert_eq!(one.count(), 0);
}
