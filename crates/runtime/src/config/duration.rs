//! Durations written the way people write them: `"250ms"`, `"10s"`, `"1m30s"`.
//!
//! Use with `#[serde(with = "grey_runtime::config::duration")]`, or [`option`] for optional fields. A bare number is
//! refused, since its unit would be a guess.

use std::{fmt::Write, time::Duration};

use serde::{Deserialize, Deserializer, Serializer, de};

/// Units, largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration such as `"1m30s"`.
///
/// # Errors
/// A sentence saying what is expected, fit for a configuration fault.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is not a duration such as \"250ms\", \"10s\" or \"1m30s\"");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?.1;
        let number: u64 = number.parse().map_err(|_| refuse())?;
        total += u128::from(number) * scale;
        rest = tail;
    }
    let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| refuse())?;
    let nanos = u32::try_from(total % 1_000_000_000).expect("a remainder of 10^9 fits 32 bits");
    Ok(Duration::new(seconds, nanos))
}

/// The shortest text that [`parse`] reads back as the same duration.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in UNITS {
        if rest >= scale {
            write!(text, "{}{unit}", rest / scale).expect("writing to a string does not fail");
            rest %= scale;
        }
    }
    text
}

/// For serde's `with`.
///
/// # Errors
/// Whatever the deserializer reports, or that the text is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// For serde's `with`.
///
/// # Errors
/// Whatever the serializer reports.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// The same for `Option<Duration>`; add `#[serde(default)]` so that the key may be absent.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// For serde's `with`.
    ///
    /// # Errors
    /// Whatever the deserializer reports, or that the text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text)).transpose().map_err(de::Error::custom)
    }

    /// For serde's `with`.
    ///
    /// # Errors
    /// Whatever the serializer reports.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&super::format(*duration)),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_each_unit() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("1m30s", 90_000)]
        {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format(duration), text);
        }
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
        assert_eq!(format(Duration::ZERO), "0s");
        assert_eq!(parse(&format(Duration::MAX)).unwrap(), Duration::MAX);
    }

    #[test]
    fn refuses_bare_numbers_and_nonsense() {
        for text in
            ["", "10", "s", "1.5s", "-1s", "10 s", "1y", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
