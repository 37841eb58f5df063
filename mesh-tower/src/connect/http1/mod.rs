//! HTTP/1.1: a connection for each exchange, kept for the next one.
//!
//! The endpoint is ready while a connection lives. A request that finds none idle opens another on its way, unless the
//! cluster's `max_connections` are all in use: then it waits its turn, first come, first served.

mod connection;
mod pool;

use std::sync::Arc;

use http::{Request, Response};
use mesh_core::error::Error;
use mesh_core::policy::retry::Failure;

use self::pool::Pool;
use super::exchange::finish;
use super::link::Established;
use super::request::to_http1;
use super::way::Way;
use super::{EndpointFuture, EndpointService, Failed};
use crate::body::MeshBody;
use crate::io::BoxStream;

impl EndpointService for PoolService {
    fn call(&self, mut request: Request<MeshBody>) -> EndpointFuture {
        to_http1(&mut request);
        Box::pin(exchange(self.0.clone(), request))
    }
}

/// Dropping it, when the endpoint is gone or has lost its connections, closes what is idle.
#[derive(Debug)]
struct PoolService(Arc<Pool>);

impl Drop for PoolService {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn exchange(pool: Arc<Pool>, request: Request<MeshBody>) -> Result<Response<MeshBody>, Failed> {
    let turn = pool.turn().await;
    let mut connection = match pool.connection().await {
        Ok(connection) => connection,
        Err(error) => return Err(unreached(error, request)),
    };
    let response = connection.send(request).await.map_err(|error| finish(pool.peer(), error))?;
    connection.give_back(&response, turn);
    Ok(response.map(MeshBody::new))
}

fn unreached(error: Error, request: Request<MeshBody>) -> Failed {
    Failed { failure: Failure::Connect, error, request: Some(Box::new(request)) }
}

/// Speaks HTTP/1.1 on `io` and on the connections that are opened beside it.
pub(super) async fn establish(way: &Arc<Way>, io: BoxStream) -> Result<Established, Error> {
    let pool = Pool::new(way.clone());
    pool.start(io).await?.keep();
    let watched = pool.clone();
    Ok(Established { service: Box::new(PoolService(pool)), lost: Box::pin(async move { watched.lost().await }) })
}
