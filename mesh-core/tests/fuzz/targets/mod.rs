//! What is fuzzed: functions from any bytes. They panic when something is wrong and do nothing else.

pub(crate) mod authority;
pub(crate) mod rbac;
pub(crate) mod resource;
pub(crate) mod secret;
pub(crate) mod stream;
mod text;
mod token;

/// One of them.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// How many seeded cases a test run takes.
    pub(crate) cases: u64,
    pub(crate) run: fn(&[u8]),
}

const fn target(name: &'static str, cases: u64, run: fn(&[u8])) -> Target {
    Target { name, cases, run }
}

/// All of them.
pub(crate) const ALL: &[Target] = &[
    target("bootstrap", 2000, text::bootstrap),
    target("bootstrap_text", 2000, text::bootstrap_text),
    target("listener", 1000, resource::listener),
    target("routes", 1000, resource::routes),
    target("cluster", 1000, resource::cluster),
    target("endpoints", 1000, resource::endpoints),
    target("any_resource", 2000, resource::any),
    target("stream_sotw", 400, stream::sotw),
    target("stream_delta", 400, stream::delta),
    target("file", 300, text::file),
    target("file_text", 300, text::file_text),
    target("names", 4000, text::names),
    target("timeouts", 2000, text::timeouts),
    target("certificate", 10_000, text::certificate),
    target("jwt", 10_000, token::jwt),
    target("rbac", 10_000, rbac::rbac),
    target("secrets", 10_000, secret::secrets),
    target("workload_api", 10_000, authority::workload_api),
    target("istio_ca", 10_000, authority::istio_ca),
];
