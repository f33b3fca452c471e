//! The network as a value that is handed in: TCP of the operating system, or an in-memory network of simulated pods.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub mod memory;
pub mod os;

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A boxed byte stream.
pub type BoxStream = Pin<Box<dyn Stream>>;

/// A bound listener.
pub trait Listener: Send + 'static {
    /// The address that is bound; the port is never 0.
    fn local_addr(&self) -> SocketAddr;
    /// Waits for the next connection.
    ///
    /// # Errors
    /// The listener is gone.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;
}

/// The network as one process sees it.
pub trait Net: Send + Sync + 'static {
    /// Binds a listener; dropping it closes the port.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Connects to an address.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing listens there.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>>;
    /// The address this process is reached at by others.
    fn own_ip(&self) -> IpAddr;
}
