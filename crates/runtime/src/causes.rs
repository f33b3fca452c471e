//! An error with everything that led to it, on one line, for logs and events.

use std::error::Error;
use std::fmt;

/// Shows an error and its sources, leaving out a source whose text its user repeats already.
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !shown.contains(&text) {
                write!(f, ": {text}")?;
            }
            shown = text;
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("no client")]
        Quiet(#[source] std::io::Error),
        #[error("no client: {0}")]
        Loud(#[source] std::io::Error),
    }

    #[test]
    fn every_cause_once() {
        let refused = || std::io::Error::other("refused");
        assert_eq!(Causes(&Outer::Quiet(refused())).to_string(), "no client: refused");
        assert_eq!(Causes(&Outer::Loud(refused())).to_string(), "no client: refused");
    }
}
