//! An in-memory network of simulated pods: every host has an address, binds ports and connects to others through byte
//! pipes. It never opens a socket, and it decides nothing by chance: which connection is refused, swallowed or reset is
//! set from outside ([`MemoryNet::set_rule`], [`MemoryNet::reset`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{BoxStream, Listener, Net};

/// Bytes in flight in each direction. One TLS record is at most 16 KiB; four of them let a writer run ahead of a reader
/// without making an idle connection expensive (the pipe allocates only what is in it).
const PIPE_BYTES: usize = 64 * 1024;

/// Connections that wait to be accepted, as the kernel's default `somaxconn` of older releases: a connect beyond that
/// waits.
const BACKLOG: usize = 128;

/// Ports handed out by the net: the range IANA reserves for that.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;

/// What becomes of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Pass,
    /// The other side says no (RST).
    Refuse,
    /// Nobody answers: the attempt hangs until the caller gives up or the rule changes.
    Swallow,
}

type Rule = Arc<dyn Fn(IpAddr, SocketAddr) -> Verdict + Send + Sync>;

/// The network all simulated hosts share.
pub struct MemoryNet {
    state: Mutex<State>,
    /// Raised when the rule changed, so that a swallowed attempt asks again.
    rule_changed: tokio::sync::Notify,
}

struct State {
    listeners: BTreeMap<(IpAddr, u16), Bound>,
    next_port: BTreeMap<IpAddr, u16>,
    rule: Rule,
    /// Both ends of every open connection, for [`MemoryNet::reset`].
    ends: BTreeMap<u64, End>,
    next_end: u64,
}

struct Bound {
    queue: mpsc::Sender<(BoxStream, SocketAddr)>,
    /// Bound to loopback: only the host itself reaches it.
    loopback: bool,
    id: u64,
}

struct End {
    a: IpAddr,
    b: IpAddr,
    reset: CancellationToken,
}

impl MemoryNet {
    /// An empty network where everything passes.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                listeners: BTreeMap::new(),
                next_port: BTreeMap::new(),
                rule: Arc::new(|_, _| Verdict::Pass),
                ends: BTreeMap::new(),
                next_end: 0,
            }),
            rule_changed: tokio::sync::Notify::new(),
        })
    }

    /// The network as the host with this address sees it. Two views of one address share its ports, as two pods on the
    /// host network do.
    pub fn host(self: &Arc<Self>, ip: IpAddr) -> Arc<dyn Net> {
        Arc::new(MemoryHost { net: Arc::clone(self), ip })
    }

    /// From now on `rule(from, to)` decides about every attempt to connect. Open connections stay; see
    /// [`Self::reset`]. The rule must not call back into this network.
    pub fn set_rule(&self, rule: impl Fn(IpAddr, SocketAddr) -> Verdict + Send + Sync + 'static) {
        self.lock().rule = Arc::new(rule);
        self.rule_changed.notify_waiters();
    }

    /// Breaks the open connections between hosts for which `between` holds (asked for both directions): both ends see
    /// `ConnectionReset`.
    pub fn reset(&self, between: impl Fn(IpAddr, IpAddr) -> bool) {
        let hit: Vec<CancellationToken> = self
            .lock()
            .ends
            .values()
            .filter(|end| between(end.a, end.b) || between(end.b, end.a))
            .map(|end| end.reset.clone())
            .collect();
        // Outside the lock: waking a task may drop a stream, which takes the lock.
        for token in hit {
            token.cancel();
        }
    }

    /// The ports something listens on at `ip`.
    pub fn listening(&self, ip: IpAddr) -> Vec<u16> {
        self.lock().listeners.keys().filter(|(at, _)| *at == ip).map(|(_, port)| *port).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, so a panic elsewhere does not make it unusable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(self: &Arc<Self>, state: &mut State, a: IpAddr, b: IpAddr, pipe: DuplexStream) -> MemoryStream {
        let id = state.next_end;
        state.next_end += 1;
        let reset = CancellationToken::new();
        state.ends.insert(id, End { a, b, reset: reset.clone() });
        MemoryStream { pipe, reset: Box::pin(reset.cancelled_owned()), was_reset: false, id, net: Arc::clone(self) }
    }
}

impl State {
    fn free_port(&mut self, ip: IpAddr) -> io::Result<u16> {
        let count = usize::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        for _ in 0..count {
            let next = self.next_port.entry(ip).or_insert(*EPHEMERAL.start());
            let port = *next;
            *next = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            if !self.listeners.contains_key(&(ip, port)) {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{ip} has no free port left")))
    }
}

struct MemoryHost {
    net: Arc<MemoryNet>,
    ip: IpAddr,
}

impl Net for MemoryHost {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let loopback = addr.ip().is_loopback();
            if !loopback && !addr.ip().is_unspecified() && addr.ip() != self.ip {
                return Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!("{addr} is not an address of this host, which is {}", self.ip),
                ));
            }
            let mut state = self.net.lock();
            let port = if addr.port() == 0 { state.free_port(self.ip)? } else { addr.port() };
            if state.listeners.contains_key(&(self.ip, port)) {
                let at = SocketAddr::new(self.ip, port);
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{at} is taken")));
            }
            let (queue, accepted) = mpsc::channel(BACKLOG);
            let id = state.next_end;
            state.next_end += 1;
            state.listeners.insert((self.ip, port), Bound { queue, loopback, id });
            let local = SocketAddr::new(addr.ip(), port);
            Ok(Box::new(MemoryListener { net: Arc::clone(&self.net), ip: self.ip, local, accepted, id }) as _)
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let to_self = addr.ip().is_loopback() || addr.ip().is_unspecified() || addr.ip() == self.ip;
            let target = SocketAddr::new(if to_self { self.ip } else { addr.ip() }, addr.port());
            let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("{addr}: connection refused"));
            loop {
                let mut changed = std::pin::pin!(self.net.rule_changed.notified());
                // Registered before the rule is read: a change in between is not missed.
                changed.as_mut().enable();
                let rule = Arc::clone(&self.net.lock().rule);
                match rule(self.ip, target) {
                    Verdict::Pass => break,
                    Verdict::Refuse => return Err(refused()),
                    Verdict::Swallow => changed.await,
                }
            }
            let (queue, far, near, peer) = {
                let mut state = self.net.lock();
                let queue = match state.listeners.get(&(target.ip(), target.port())) {
                    Some(bound) if to_self || !bound.loopback => bound.queue.clone(),
                    _ => return Err(refused()),
                };
                let peer_ip = if addr.ip().is_loopback() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.ip };
                let peer = SocketAddr::new(peer_ip, state.free_port(self.ip)?);
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                let near = self.net.end(&mut state, self.ip, target.ip(), near);
                let far = self.net.end(&mut state, target.ip(), self.ip, far);
                (queue, far, near, peer)
            };
            queue.send((Box::pin(far) as BoxStream, peer)).await.map_err(|_| refused())?;
            Ok(Box::pin(near) as BoxStream)
        })
    }

    fn own_ip(&self) -> IpAddr {
        self.ip
    }
}

struct MemoryListener {
    net: Arc<MemoryNet>,
    ip: IpAddr,
    local: SocketAddr,
    accepted: mpsc::Receiver<(BoxStream, SocketAddr)>,
    id: u64,
}

impl Listener for MemoryListener {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            self.accepted
                .recv()
                .await
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, format!("{} is closed", self.local)))
        })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        let key = (self.ip, self.local.port());
        let gone = match state.listeners.get(&key) {
            Some(bound) if bound.id == self.id => state.listeners.remove(&key),
            _ => None,
        };
        drop(state);
        drop(gone);
    }
}

/// One end of a connection.
struct MemoryStream {
    pipe: DuplexStream,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
    was_reset: bool,
    id: u64,
    net: Arc<MemoryNet>,
}

impl MemoryStream {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.was_reset || self.reset.as_mut().poll(cx).is_ready() {
            self.was_reset = true;
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the simulated network"));
        }
        Ok(())
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let gone = self.net.lock().ends.remove(&self.id);
        drop(gone);
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
