//! What the API server reaches when it calls webhooks and aggregated APIs: the simulated pods, and this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::net::os::OsNet;
use kubevirt_runtime::net::{BoxStream, Listener, Net};

/// The address of the service `kubernetes`: on the network of the pods the server is known by it.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// The pods' network, with the loopback of this machine in place of a pod's own: a webhook under development runs there.
pub(crate) struct Reach {
    pods: Arc<dyn Net>,
    machine: OsNet,
}

impl Reach {
    pub(crate) fn new(network: &Arc<MemoryNet>) -> Self {
        Self { pods: network.host(SERVER), machine: OsNet::new(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
    }
}

impl Net for Reach {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.pods.listen(addr)
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        if addr.ip().is_loopback() { self.machine.connect(addr) } else { self.pods.connect(addr) }
    }

    fn own_ip(&self) -> IpAddr {
        self.pods.own_ip()
    }
}
