//! tonic's `serve_with_incoming` on a mesh listener.

use tonic::transport::server::Connected;

use super::MeshIo;
use crate::inbound::identify::PeerInfo;

impl Connected for MeshIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer().clone()
    }
}
