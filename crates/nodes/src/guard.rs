//! Makes a killed program dead: whatever tasks it left behind reach neither the network nor the API any more.
//!
//! Dropping a program's future ends it, but not the tasks it has spawned. On a real node the kernel ends those; here
//! their doors close: ports are freed, and every further call waits for ever.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kubevirt_runtime::net::{BoxStream, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A network that is there until `killed` is cancelled.
pub(crate) struct GuardedNet {
    pub(crate) inner: Arc<dyn Net>,
    pub(crate) killed: CancellationToken,
}

struct GuardedListener {
    inner: Option<Box<dyn Listener>>,
    local: SocketAddr,
    killed: CancellationToken,
}

impl Net for GuardedNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            if self.killed.is_cancelled() {
                return pending().await;
            }
            let inner = self.inner.listen(addr).await?;
            let local = inner.local_addr();
            Ok(Box::new(GuardedListener { inner: Some(inner), local, killed: self.killed.clone() })
                as Box<dyn Listener>)
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.killed.cancelled() => pending().await,
                stream = self.inner.connect(addr) => Ok(guard_stream(stream?, &self.killed)),
            }
        })
    }

    fn own_ip(&self) -> IpAddr {
        self.inner.own_ip()
    }
}

impl Listener for GuardedListener {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            if let Some(inner) = &mut self.inner {
                tokio::select! {
                    biased;
                    () = self.killed.cancelled() => {}
                    accepted = inner.accept() => {
                        let (stream, from) = accepted?;
                        return Ok((guard_stream(stream, &self.killed), from));
                    }
                }
            }
            // Dropping the listener frees the port for the program's successor.
            self.inner = None;
            pending().await
        })
    }
}

fn guard_stream(inner: BoxStream, killed: &CancellationToken) -> BoxStream {
    Box::pin(GuardedStream { inner: Some(inner), killed: Box::pin(killed.clone().cancelled_owned()) })
}

/// A connection that breaks for both ends when the program is killed.
struct GuardedStream {
    inner: Option<BoxStream>,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl GuardedStream {
    fn alive(&mut self, context: &mut Context<'_>) -> io::Result<&mut BoxStream> {
        use std::future::Future;
        if self.inner.is_some() && self.killed.as_mut().poll(context).is_ready() {
            self.inner = None;
        }
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().alive(context) {
            Ok(inner) => inner.as_mut().poll_read(context, to),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().alive(context) {
            Ok(inner) => inner.as_mut().poll_write(context, from),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().alive(context) {
            Ok(inner) => inner.as_mut().poll_flush(context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().alive(context) {
            Ok(inner) => inner.as_mut().poll_shutdown(context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// A client whose requests are answered until `killed` is cancelled. A watch that is open then shows nothing more.
pub(crate) fn guard_client(inner: Client, namespace: &str, killed: CancellationToken) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, killed) = (inner.clone(), killed.clone());
        async move {
            let answer: Result<Response<Body>, kube::Error> = tokio::select! {
                biased;
                () = killed.cancelled() => pending().await,
                answer = inner.send(request) => answer,
            };
            Ok::<_, kube::Error>(
                answer?.map(|body| GuardedBody { inner: body, killed: Box::pin(killed.cancelled_owned()) }),
            )
        }
    });
    Client::new(service, namespace)
}

struct GuardedBody {
    inner: Body,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for GuardedBody {
    type Data = bytes::Bytes;
    type Error = kube::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        use std::future::Future;
        let this = self.get_mut();
        if this.killed.as_mut().poll(context).is_ready() {
            // Nothing wakes what is left of the program, and nothing needs to.
            return Poll::Pending;
        }
        Pin::new(&mut this.inner).poll_frame(context)
    }
}
