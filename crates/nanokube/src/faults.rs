//! The seam through which a test breaks the server on purpose: before a request, after its commit, and per watch event.
//!
//! The server asks; what goes wrong is decided elsewhere ([`Faults`]). [`NoFaults`] never interferes.

use std::time::Duration;

use crate::identity::UserInfo;
use crate::request::RequestInfo;

/// The request a fault may hit.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub user: &'a UserInfo,
    pub request: &'a RequestInfo,
    pub user_agent: &'a str,
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
    fn event(&self, _call: Call<'_>, _revision: u64) -> OnEvent {
        OnEvent::Deliver
    }
}

/// Nothing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
