//! The seam through which a test breaks the server on purpose: before a request, while it reads, after its commit, and per
//! watch event.
//!
//! The server asks; what goes wrong is decided elsewhere ([`Faults`]). [`NoFaults`] never interferes; [`Injector`] carries
//! out a [`FaultPlan`] drawn from a seed. Whatever is injected a real server may do as well: a client that fails under it
//! fails on a bad day.

mod injector;
mod plan;
#[cfg(test)]
mod tests;

pub use injector::{Injected, Injector, trace_hash};
pub use plan::{Fault, FaultPlan, Misfortune, Scope};

use std::time::Duration;

use crate::identity::UserInfo;
use crate::request::RequestInfo;

/// The request a fault may hit.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub user: &'a UserInfo,
    pub request: &'a RequestInfo,
    pub user_agent: &'a str,
    /// What was sent; empty before the request has been read, and for the events of a watch.
    pub body: &'a [u8],
}

/// What happens before a request is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Before {
    #[default]
    Pass,
    /// The request waits, then goes on.
    Delay(Duration),
    /// The server answers at once with this code (429, 500, 503, ...) and does nothing.
    Refuse { code: u16, retry_after: Option<u32> },
    /// The connection breaks before anything happened.
    Drop,
    /// Somebody on the way sends the request twice; the client gets the second answer.
    Twice,
}

/// What happens to the reply of a request that has been carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    #[default]
    Reply,
    /// The reply comes late.
    Delay(Duration),
    /// The connection breaks: the client does not learn that the write was committed.
    Lose,
}

/// What happens to one event of one watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEvent {
    #[default]
    Deliver,
    /// The event, and all after it, come late.
    Delay(Duration),
    /// The stream ends before this event.
    Cut,
    /// The stream ends with 410 before this event: the client must list again.
    Expire,
    /// The event and those of this time are held back, then only the last state of each object is told.
    Withhold(Duration),
    /// For this time the watch tells nothing but bookmarks.
    Bookmarks(Duration),
}

/// What a read is answered from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// How many revisions the answering replica is behind. Only reads that accept any state (`resourceVersion=0`) are
    /// answered by it: a read without a version is consistent on a real server, too.
    pub behind: u64,
    /// Items in an order drawn from this number; only where no order is promised (unpaginated, any state).
    pub order: Option<u64>,
    /// At most so many items on a page, for clients that ask for pages.
    pub page: Option<usize>,
}

/// Decides what goes wrong. Asked on every request; implementations are expected to be quick and seeded.
pub trait Faults: Send + Sync + 'static {
    fn before(&self, _call: Call<'_>) -> Before {
        Before::Pass
    }
    /// `code` is the reply's status.
    fn after(&self, _call: Call<'_>, _code: u16) -> After {
        After::Reply
    }
    /// Asked for get, list, and the first state of a watch.
    fn read(&self, _call: Call<'_>) -> Read {
        Read::default()
    }
    fn event(&self, _call: Call<'_>, _revision: u64) -> OnEvent {
        OnEvent::Deliver
    }
}

/// Nothing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
