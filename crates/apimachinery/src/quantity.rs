//! Amounts of resources as Kubernetes writes them (`100m`, `512Mi`, `1e3`), exact and in canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The notation a quantity keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`
    Decimal,
    /// `Ki` ... `Ei`
    Binary,
    /// `e3`
    Exponent,
}

/// An exact amount, counted in billionths (the finest amount the format can tell).
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    notation: Notation,
}

/// A text that is not a quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    #[error("{0:?} is not a quantity such as 500m, 2 or 512Mi")]
    Syntax(String),
    #[error("{0:?} is larger than a quantity can be")]
    TooLarge(String),
}

const NANO: i128 = 1_000_000_000;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// The suffix of each power of a thousand, from billionths up.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

impl Quantity {
    /// The amount in thousandths, rounded up: how CPU is counted.
    pub fn milli(self) -> i128 {
        const PER_MILLI: i128 = NANO / 1000;
        self.nano.div_euclid(PER_MILLI) + i128::from(self.nano.rem_euclid(PER_MILLI) != 0)
    }

    /// The amount in whole units, rounded up: how memory and counts are counted.
    pub fn whole(self) -> i128 {
        self.nano.div_euclid(NANO) + i128::from(self.nano.rem_euclid(NANO) != 0)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let large = || QuantityError::TooLarge(text.to_owned());
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(syntax());
        }
        let (notation, base, power) = if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
            (Notation::Binary, 1024_i128, i32::try_from(i).map_err(|_| large())? + 1)
        } else if let Some(i) = DECIMAL.iter().position(|s| *s == suffix) {
            (Notation::Decimal, 10, (i32::try_from(i).map_err(|_| large())? - 3) * 3)
        } else if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
            (Notation::Exponent, 10, exponent.parse().map_err(|_| syntax())?)
        } else {
            return Err(syntax());
        };
        let digits: i128 = match format!("{whole}{fraction}").trim_start_matches('0') {
            "" => 0,
            d => d.parse().map_err(|_| large())?,
        };
        let places = i32::try_from(fraction.len()).map_err(|_| large())?;
        let mut nano = digits;
        let mut down = places;
        if notation == Notation::Binary {
            nano = nano.checked_mul(pow(base, power).ok_or_else(large)?).ok_or_else(large)?;
        } else {
            down -= power;
        }
        down -= 9;
        if down <= 0 {
            nano = nano.checked_mul(pow(10, -down).ok_or_else(large)?).ok_or_else(large)?;
        } else {
            // Finer than a billionth: rounded up, as the format asks.
            let unit = pow(10, down).unwrap_or(i128::MAX);
            nano = nano / unit + i128::from(nano % unit != 0);
        }
        Ok(Self { nano: if negative { -nano } else { nano }, notation })
    }
}

fn pow(base: i128, exponent: i32) -> Option<i128> {
    base.checked_pow(u32::try_from(exponent).ok()?)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.notation == Notation::Binary && self.nano % NANO == 0 {
            let mut n = self.nano / NANO;
            let mut suffix = "";
            for next in BINARY {
                if n % 1024 != 0 {
                    break;
                }
                n /= 1024;
                suffix = next;
            }
            return write!(f, "{n}{suffix}");
        }
        let mut n = self.nano;
        let mut thousands = 0;
        while n % 1000 == 0 && thousands + 1 < DECIMAL.len() {
            n /= 1000;
            thousands += 1;
        }
        if self.notation == Notation::Exponent {
            let exponent = i32::try_from(thousands).map_err(|_| fmt::Error)? * 3 - 9;
            return if exponent == 0 { write!(f, "{n}") } else { write!(f, "{n}e{exponent}") };
        }
        write!(f, "{n}{}", DECIMAL[thousands])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for (given, want) in [
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-1.5", "-1500m"),
            ("0.5Ki", "512"),
            ("110", "110"),
        ] {
            assert_eq!(given.parse::<Quantity>().map(|q| q.to_string()), Ok(want.to_owned()), "{given}");
        }
    }

    #[test]
    fn not_quantities() {
        for text in ["", "x", "1.2.3", "1 Gi", "Mi", "1KiB", "e3", "1e", "--1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn compared_by_amount() {
        let q = |s: &str| s.parse::<Quantity>().unwrap();
        assert_eq!(q("1Gi"), q("1024Mi"));
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1G") < q("1Gi"));
        assert_eq!(q("0.1m").milli(), 1);
        assert_eq!(q("250m").whole(), 1);
    }
}
