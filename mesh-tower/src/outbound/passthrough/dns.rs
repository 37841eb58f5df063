//! From a host's name to its addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::dns::{Resolve, lookup};
use mesh_core::error::{Code, Error};

/// The most addresses of one name that are of use to one request.
const MOST: usize = 16;

/// Looks up names.
pub(super) struct Dns(pub(super) Arc<dyn Resolve>);

impl Dns {
    /// The addresses of `host`, in the order they are to be tried; at least one.
    pub(super) async fn lookup(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        match lookup(&*self.0, host, port).await {
            Ok(mut addresses) => {
                addresses.truncate(MOST);
                Ok(addresses)
            }
            Err(error) => {
                let text = format!("host `{host}` is not in the mesh, and DNS does not know it: {error}");
                Err(Error::new(Code::NO_CONNECTION, text)
                    .with_next_step("check the name, or add the host to the mesh")
                    .with_source(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::dns::SystemResolver;

    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named() {
        // RFC 6761: no resolver may know it.
        let error = Dns(Arc::new(SystemResolver::default())).lookup("nothing.invalid", 80).await.unwrap_err();
        assert_eq!(error.code(), Code::NO_CONNECTION);
        assert!(error.message().contains("`nothing.invalid`"), "{error}");
    }
}
