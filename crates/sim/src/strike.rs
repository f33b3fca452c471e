//! One fault at one exact moment: the k-th write of the operator.
//!
//! Faults drawn from a seed are nanokube's ([`nanokube::FaultPlan`]). These here are for going through every moment, one
//! run each: what breaks only between two particular writes is not left to luck.

use std::fmt;
use std::time::Duration;

/// Longer than a lease (15 s): whoever is cut off for that long has been replaced when it is back.
pub const CUT_OFF: Duration = Duration::from_secs(25);

/// What happens at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// F1: the process that wrote dies before it sees the answer.
    Crash,
    /// F2: the write is committed, its answer lost.
    LostReply,
    /// F2: the write arrives twice; the second answer is seen.
    Twice,
    /// F7: from this write on the leader can't renew its lease, but goes on with everything else.
    Deposed,
    /// F7: from this write on nothing of the leader gets through for longer than its lease, then everything does.
    Frozen,
}

impl Blow {
    /// Every blow, in order.
    pub const ALL: [Self; 5] = [Self::Crash, Self::LostReply, Self::Twice, Self::Deposed, Self::Frozen];

    /// Its class in the catalogue of faults.
    pub fn class(self) -> &'static str {
        match self {
            Self::Crash => "F1",
            Self::LostReply | Self::Twice => "F2",
            Self::Deposed | Self::Frozen => "F7",
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::LostReply => "lost-reply",
            Self::Twice => "twice",
            Self::Deposed => "deposed",
            Self::Frozen => "frozen",
        })
    }
}

/// A blow and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    pub blow: Blow,
    /// The operator's write, counted from 1; its lease and its events are not counted.
    pub write: u32,
}

/// A write by what it writes, where numbers mean nothing any more: after a blow the operator repeats and leaves out some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Verb and path.
    pub what: String,
    /// The how manyth of this kind in the run, from 1 on, or a later one.
    pub nth: u32,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at write {}", self.blow.class(), self.blow, self.write)
    }
}
