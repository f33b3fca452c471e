//! Kubernetes quantities, read only as far as it takes to see that two spellings mean the same.

/// A quantity in thousandths of a millionth, which is as fine as the format goes; `None` when it is not one, or too
/// large to compare exactly.
pub(crate) fn parse(text: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let digits_end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let scale: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            NANO.checked_mul(10_i128.checked_pow(exponent)?)?
        }
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(scale)? / divisor;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn spellings_of_the_same_quantity_are_equal() {
        for (left, right) in
            [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("2000Mi", "2097152000")]
        {
            assert!(parse(left).is_some());
            assert_eq!(parse(left), parse(right), "{left} and {right}");
        }
        assert_ne!(parse("1G"), parse("1Gi"));
        assert_eq!(parse("-1"), parse("-1000m"));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Mi", "1x", "1e", "."] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
