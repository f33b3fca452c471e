//! TCP of the operating system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

use super::{BoxStream, Listener, Net};

/// The operating system's network.
#[derive(Clone, Debug)]
pub struct OsNet {
    own_ip: IpAddr,
}

impl OsNet {
    /// `own_ip` is the address others reach this process at.
    pub fn new(own_ip: IpAddr) -> Self {
        Self { own_ip }
    }

    /// Asks the routing table for the address this machine would speak from; loopback on a machine without a route.
    pub fn detect() -> Self {
        Self { own_ip: outward_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
    }
}

/// Connecting a UDP socket sends nothing: it only makes the kernel choose a source address. The target is a
/// documentation address (RFC 5737), which every default route covers.
fn outward_ip() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

/// One of several loopback addresses of this machine, for a program that stands in for a pod: what listens on every address
/// listens on this one only.
#[derive(Clone, Debug)]
pub struct AddressNet {
    inner: OsNet,
}

impl AddressNet {
    /// `address` is one of this machine's that no other program listens on.
    pub fn new(address: IpAddr) -> Self {
        Self { inner: OsNet::new(address) }
    }
}

impl Net for AddressNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let ip = if addr.ip().is_unspecified() { self.inner.own_ip } else { addr.ip() };
        self.inner.listen(SocketAddr::new(ip, addr.port()))
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        self.inner.connect(addr)
    }

    fn own_ip(&self) -> IpAddr {
        self.inner.own_ip
    }
}

impl Net for OsNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = TcpListener::bind(addr).await?;
            let local = inner.local_addr()?;
            Ok(Box::new(OsListener { inner, local }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            // Requests here are small and answered at once: waiting to fill a segment only adds latency.
            stream.set_nodelay(true)?;
            Ok(Box::pin(stream) as BoxStream)
        })
    }

    fn own_ip(&self) -> IpAddr {
        self.own_ip
    }
}

struct OsListener {
    inner: TcpListener,
    local: SocketAddr,
}

impl Listener for OsListener {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.inner.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::pin(stream) as BoxStream, peer))
        })
    }
}
