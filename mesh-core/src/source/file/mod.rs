//! Resources from one YAML file.

mod json;

pub use json::resource_from_json;
