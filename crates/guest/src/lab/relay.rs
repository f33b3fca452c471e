//! What carries a migration between two pods, as the node's handler will: sockets in the source's pod, each connected to
//! its counterpart in the target's. It can hold one direction back, cut everything, and say how much went through.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::own;
use crate::{Doing, Result};

/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;

/// Shared by all streams of one migration.
#[derive(Debug)]
pub struct Control {
    /// Answers from the target are kept back while this is true.
    hold_answers: watch::Sender<bool>,
    cut: CancellationToken,
    /// Bytes of memory and disks that went from source to target, and connections made.
    carried: watch::Sender<(u64, u32)>,
}

/// One migration's carrier. Dropping it stops listening; open streams end when their ends do.
#[derive(Debug)]
pub struct Relay {
    control: Arc<Control>,
    stop: CancellationToken,
}

/// A socket in the source's pod and its counterpart.
#[derive(Clone, Debug)]
pub struct Route {
    pub listen: PathBuf,
    pub connect: PathBuf,
    /// The daemons' own conversation, as against the guest's memory and disks.
    pub is_control: bool,
}

impl Relay {
    /// Listens on every route.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(routes: Vec<Route>) -> Result<Self> {
        let control = Arc::new(Control {
            hold_answers: watch::channel(false).0,
            cut: CancellationToken::new(),
            carried: watch::channel((0, 0)).0,
        });
        let stop = CancellationToken::new();
        for route in routes {
            for stale in [&route.listen, &route.connect] {
                if route.is_control && stale == &route.connect {
                    continue;
                }
                // Left over from an earlier migration in this direction or the other.
                let _ = std::fs::remove_file(stale);
            }
            let listener =
                UnixListener::bind(&route.listen).doing(|| format!("cannot listen on {}", route.listen.display()))?;
            own(&route.listen)?;
            tokio::spawn(accept(listener, route, Arc::clone(&control), stop.clone()));
        }
        Ok(Self { control, stop })
    }

    /// Keeps the daemons' answers back, or lets them go.
    pub fn hold_answers(&self, hold: bool) {
        let _ = self.control.hold_answers.send(hold);
    }

    /// Breaks every connection, and every one that will be made.
    pub fn cut(&self) {
        self.control.cut.cancel();
    }

    /// Waits until a connection was made.
    pub async fn connected(&self) {
        let mut carried = self.control.carried.subscribe();
        let _ = carried.wait_for(|(_, connections)| *connections > 0).await;
    }

    /// Waits until this much of the guest went through.
    pub async fn carried(&self, bytes: u64) {
        let mut carried = self.control.carried.subscribe();
        let _ = carried.wait_for(|(so_far, _)| *so_far >= bytes).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: UnixListener, route: Route, control: Arc<Control>, stop: CancellationToken) {
    loop {
        let near = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => near,
                Err(_) => return,
            },
        };
        let far = match UnixStream::connect(&route.connect).await {
            Ok(far) if !control.cut.is_cancelled() => far,
            // Dropping the near end is what the source sees of it.
            _ => continue,
        };
        control.carried.send_modify(|(_, connections)| *connections += 1);
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::spawn(pump(near_in, far_out, Arc::clone(&control), false, !route.is_control));
        tokio::spawn(pump(far_in, near_out, Arc::clone(&control), route.is_control, false));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, control: Arc<Control>, answers: bool, counts: bool) {
    let mut buffer = vec![0; CHUNK];
    let mut hold = control.hold_answers.subscribe();
    loop {
        let length = tokio::select! {
            () = control.cut.cancelled() => return,
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            },
        };
        if answers {
            tokio::select! {
                () = control.cut.cancelled() => return,
                _ = hold.wait_for(|hold| !*hold) => {}
            }
        }
        let written = tokio::select! {
            () = control.cut.cancelled() => return,
            written = to.write_all(&buffer[..length]) => written,
        };
        if written.is_err() {
            break;
        }
        if counts {
            control.carried.send_modify(|(bytes, _)| *bytes += length as u64);
        }
    }
    let _ = to.shutdown().await;
}
