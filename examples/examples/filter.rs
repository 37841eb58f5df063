//! An HTTP filter of the application's own, registered by its type URL: one half reads its configuration, as it stands in a
//! Listener or a route, the other sees requests. A Listener that names it is refused by whoever does not have it.

use std::any::Any;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, request, response};
use mesh_core::decode::{ExtensionValue, Fault, HttpFilterType, Side};
use mesh_core::error::Error;
use mesh_core::model::{FilterConfig, HttpFilter};
use mesh_core::source::MemorySource;
use mesh_core::source::file::resource_from_json;
use mesh_examples::{Failure, say};
use mesh_tower::Mesh;
use mesh_tower::body::MeshBody;
use mesh_tower::filter::{Filter, FilterType, Verdict};
use mesh_tower::outbound::{OutboundFacts, OutboundFilters, OutboundOptions};
use mesh_tower::reply::Reply;
use serde_json::{Value, json};

/// What a control plane writes: a `TypedStruct` of this type, `{"ticket": "..."}`.
const TYPE: &str = "example.com.filters.Ticket";

/// Lets requests pass that have this ticket.
#[derive(Debug, Clone)]
struct Ticket(HeaderValue);

struct Decoding;

impl HttpFilterType for Decoding {
    fn type_url(&self) -> &str {
        TYPE
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let ExtensionValue::Struct(fields) = value else {
            return Err(vec![Fault::new("", "must come as a TypedStruct")]);
        };
        let ticket = fields["ticket"].as_str().and_then(|ticket| HeaderValue::from_str(ticket).ok());
        match ticket {
            Some(ticket) => Ok(Arc::new(Ticket(ticket))),
            None => Err(vec![Fault::new("ticket", "must be the value of a header")]),
        }
    }
}

struct Running;

impl FilterType<OutboundFacts> for Running {
    fn type_url(&self) -> &str {
        TYPE
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<OutboundFacts>>, Error> {
        // The most specific override wins.
        let config: &dyn Any = &**overrides.last().unwrap_or(&filter.config);
        let ticket = config.downcast_ref::<Ticket>().expect("the other half made it");
        Ok(Arc::new(ticket.clone()))
    }
}

impl Filter<OutboundFacts> for Ticket {
    fn on_request(&self, request: &mut request::Parts, _facts: &OutboundFacts) -> Verdict {
        match request.headers.get("x-ticket") {
            Some(shown) if *shown == self.0 => Verdict::Continue,
            _ => Verdict::Reply(Box::new(Reply::new(StatusCode::FORBIDDEN, "no ticket"))),
        }
    }

    fn on_response(&self, response: &mut response::Parts, _facts: &OutboundFacts) {
        response.headers.insert("x-checked", HeaderValue::from_static("yes"));
    }
}

/// A Listener whose one route answers itself, behind the filter; under `/vip` another ticket is asked for.
fn listener() -> Value {
    let http = "type.googleapis.com/envoy.extensions.filters";
    let ticket = |ticket: &str| json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": TYPE, "value": {"ticket": ticket}});
    let routes = json!([
        {"match": {"prefix": "/vip"}, "direct_response": {"status": 200}, "typed_per_filter_config": {"ticket": ticket("gold")}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
    ]);
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "theatre:80",
        "api_listener": {"api_listener": {
            "@type": format!("{http}.network.http_connection_manager.v3.HttpConnectionManager"),
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [
                {"name": "ticket", "typed_config": ticket("paper")},
                {"name": "router", "typed_config": {"@type": format!("{http}.http.router.v3.Router")}},
            ],
        }},
    })
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut options = OutboundOptions::default();
    options.filters = OutboundFilters::standard().with(Arc::new(Running));
    let mesh = Mesh::builder()
        .source(MemorySource::new([resource_from_json(&listener())?]))
        .filter_type(Arc::new(Decoding))
        .client_options(options)
        .build()?;
    let client = mesh.http();
    for (path, ticket, status) in [("/", "paper", 200), ("/", "", 403), ("/vip", "paper", 403), ("/vip", "gold", 200)] {
        let request =
            http::Request::get(format!("http://theatre{path}")).header("x-ticket", ticket).body(MeshBody::empty())?;
        let answer = client.send(request).await?;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["x-checked"].as_bytes()),
            (status, &b"yes"[..]),
            "{path}"
        );
        say(&format!("{path} with the ticket `{ticket}`: {}", answer.status()))?;
    }
    Ok(())
}
