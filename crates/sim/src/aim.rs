//! Where exact faults strike next.

use std::collections::BTreeMap;

use nanokube::Call;

use crate::run::Script;
use crate::strike::{Blow, Strike, Target};

/// Verb and path of a request.
pub(crate) fn what(call: &Call<'_>) -> String {
    format!("{} {}", call.request.verb, call.request.path)
}

/// When a write is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    /// It has arrived.
    Arrival,
    /// It is carried out.
    Write,
}

impl When {
    fn of(blow: Blow) -> Self {
        if blow == Blow::Twice { Self::Arrival } else { Self::Write }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Aim {
    blow: Option<Blow>,
    /// The number of the first write to strike, until it was struck.
    first: Option<u32>,
    /// Those that are left of a series.
    targets: Vec<Target>,
    is_series: bool,
    /// How often each has arrived, and was carried out.
    seen: BTreeMap<(When, String), u32>,
}

impl Aim {
    pub(crate) fn of(script: &Script) -> Self {
        let mut aim = Self::default();
        aim.follow(script);
        aim
    }

    /// Aims as another script says from now on.
    pub(crate) fn follow(&mut self, script: &Script) {
        let (strike, targets) = (script.trouble.strike, script.trouble.series.clone());
        self.blow = strike.map(|strike| strike.blow);
        self.first = strike.map(|strike| strike.write);
        self.is_series = !targets.is_empty();
        self.targets = targets;
    }

    /// Whether nothing more is to strike. A series is over for an act when that writes no more.
    pub(crate) fn is_at_peace(&self) -> bool {
        self.first.is_none() || self.is_series
    }

    /// What strikes at a write, which is the `number`th that came so far.
    pub(crate) fn at(&mut self, when: When, number: u32, call: &Call<'_>) -> Option<Strike> {
        let what = what(call);
        // Also before runs part: the count is the same for all of them.
        let nth = self.seen.entry((when, what.clone())).or_default();
        *nth += 1;
        let nth = *nth;
        let blow = self.blow.filter(|blow| When::of(*blow) == when)?;
        if self.first.is_some() {
            self.first.take_if(|first| *first == number)?;
        } else {
            let place = self.targets.iter().position(|target| target.what == what && nth >= target.nth)?;
            self.targets.remove(place);
        }
        Some(Strike { blow, write: number })
    }
}
