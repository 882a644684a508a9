//! Durations and sizes with their units. A bare number is refused: what it counts would be a guess.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How long: `"250ms"`, `"30s"`, `"5m"`, `"12h"`, `"7d"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// How many bytes: `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The text is not a whole number and a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number and one of the units {units}, such as {example:?}")]
pub struct InvalidUnit {
    units: &'static str,
    example: &'static str,
}

/// A quantity that is written with its unit.
trait Unit: Sized + FromStr<Err = InvalidUnit> + fmt::Display {
    const NAME: &'static str;
    const EXPECTING: &'static str;
}

impl Period {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn from_days(days: u64) -> Self {
        Self::from_secs(days * 86_400)
    }
}

impl Size {
    pub const fn kib(count: u64) -> Self {
        Self(count * KIB)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count * MIB)
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Milliseconds in each; smallest first.
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Bytes in each; smallest first.
const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", 1024 * MIB)];

impl Unit for Period {
    const NAME: &'static str = "duration";
    const EXPECTING: &'static str = "a duration with its unit, such as \"30s\"";
}

impl Unit for Size {
    const NAME: &'static str = "size";
    const EXPECTING: &'static str = "a size with its unit, such as \"64KiB\"";
}

impl FromStr for Period {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = InvalidUnit { units: "ms, s, m, h, d", example: "30s" };
        Ok(Self(Duration::from_millis(count(text, TIMES).ok_or(invalid)?)))
    }
}

impl FromStr for Size {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = InvalidUnit { units: "B, KiB, MiB, GiB", example: "64KiB" };
        Ok(Self(count(text, SIZES).ok_or(invalid)?))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), "0s", TIMES)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest(f, self.0, "0B", SIZES)
    }
}

fn count(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write_in_largest(f: &mut fmt::Formatter<'_>, all: u64, nothing: &str, units: &[(&str, u64)]) -> fmt::Result {
    let whole = units.iter().rev().find(|(_, factor)| all > 0 && all.is_multiple_of(*factor));
    match whole {
        Some((name, factor)) => write!(f, "{}{name}", all / factor),
        None => f.write_str(nothing),
    }
}

struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: Unit> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Text in the file, and a string with a format of its own in the schema.
macro_rules! written_as_text {
    ($($name:ident),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(std::marker::PhantomData))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                <Self as Unit>::NAME.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": <Self as Unit>::NAME })
            }
        }
    )+};
}

written_as_text!(Period, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        for (text, millis) in [("0s", 0), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1d", 86_400_000)] {
            assert_eq!(text.parse(), Ok(Period(Duration::from_millis(millis))), "{text}");
        }
        for (text, bytes) in [("0B", 0), ("512B", 512), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_known_unit_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "1 s", "1S", "5min", "1m30s", "18446744073709551615d"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for text in ["", "64", "KiB", "64KB", "64kib", "1.5MiB", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_written_in_their_largest_whole_unit() {
        for text in ["0s", "250ms", "90s", "5m", "36h", "7d"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["0B", "1000B", "64KiB", "256MiB", "2GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }
}
